import itertools

import torch

from ddpm.randomness import generator, seed_dropout, seed_of


def test_every_place_of_a_key_counts_and_so_does_their_order():
    keys = list(itertools.product(range(3), repeat=5))
    assert len({seed_of(*key) for key in keys}) == len(keys)
    draws = [torch.randn(4, generator=generator("cpu", *key)) for key in ((1, 2, 3), (1, 2, 3), (3, 2, 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_dropout_draws_what_the_key_says():
    ones = torch.ones(1000)
    torch.manual_seed(seed_of(1, 2, 3))
    expected = torch.dropout(ones, 0.5, True)
    torch.rand(7)
    seed_dropout(torch.device("cpu"), 1, 2, 3)
    assert torch.equal(torch.dropout(ones, 0.5, True), expected)
