import functools
import itertools
from types import SimpleNamespace

import torch

from ddpm.randomness import generator, seed_dropout, seed_of


def test_every_place_of_a_key_counts_and_so_does_their_order():
    keys = list(itertools.product(range(3), repeat=5))
    assert len({seed_of(*key) for key in keys}) == len(keys)
    draws = [torch.randn(4, generator=generator("cpu", *key)) for key in ((1, 2, 3), (1, 2, 3), (3, 2, 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_seeds_have_64_bits():
    """Each of the 64 bits is 0 in some of 200 seeds and 1 in others; by chance one would not be once in 2^199."""
    seeds = [seed_of(key) for key in range(200)]
    ones, zeros = functools.reduce(int.__or__, seeds), functools.reduce(int.__and__, seeds)
    assert (ones, zeros) == (2**64 - 1, 0)


def test_dropout_of_a_device_seeds_that_device_alone(monkeypatch):
    seeds, before = [], torch.get_rng_state()
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(manual_seed=seeds.append))
    seed_dropout(torch.device("cuda"), 1, 2, 3)
    assert seeds == [seed_of(1, 2, 3)]
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_what_the_key_says():
    ones = torch.ones(1000)
    torch.manual_seed(seed_of(1, 2, 3))
    expected = torch.dropout(ones, 0.5, True)
    torch.rand(7)
    seed_dropout(torch.device("cpu"), 1, 2, 3)
    assert torch.equal(torch.dropout(ones, 0.5, True), expected)
