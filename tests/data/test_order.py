import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.data.dataset import DataError
from ddpm.data.order import Order, check_parts, part_of, permutation


def stream(n, seed, epochs):
    return list(itertools.chain.from_iterable(permutation(n, seed, epoch).tolist() for epoch in range(epochs)))


@pytest.mark.long
@given(
    n=st.integers(24, 60),
    parts=st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 3), (4, 2), (5, 1), (3, 3), (7, 2), (24, 1)]),
    seed=st.integers(0, 2**32),
    start=st.integers(0, 5),
)
def test_a_global_batch_is_a_stretch_of_the_stream(n, parts, seed, start):
    world_size, accumulate = parts
    ranks = [
        list(Order(n, 24, seed, 6, start=start, rank=rank, world_size=world_size, accumulate=accumulate))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {(6 - start) * accumulate}
    sizes = {len(batch) for batches in ranks for batch in batches}
    assert sizes == {24 // (world_size * accumulate), -(-24 // (world_size * accumulate))}
    # Micro-batch by micro-batch and, within one, rank by rank.
    joined = [index for micro in zip(*ranks, strict=True) for part in micro for index in part]
    assert joined == stream(n, seed, 7)[start * 24 : 6 * 24]


def test_every_epoch_is_a_permutation_of_its_own():
    orders = [permutation(50, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 9


def test_a_batch_may_be_the_whole_set():
    assert [sorted(batch) for batch in Order(8, 8, 0, 3)] == [list(range(8))] * 3


def test_length_counts_from_step_0():
    assert len(Order(100, 10, 0, 7, start=5, accumulate=2)) == 14


def test_parts_of_a_batch_that_does_not_divide():
    assert [list(range(10)[part_of(10, 4, k)]) for k in range(4)] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulate", "said"),
    [(3, 4, 1, "use 4 at least"), (11, 4, 3, "4 processes x 3 .*: use 12"), (0, 1, 1, "at least 1")],
)
def test_a_part_without_an_example_is_refused(batch_size, world_size, accumulate, said):
    with pytest.raises(DataError, match=said):
        check_parts(batch_size, world_size, accumulate)


def test_fewer_examples_than_one_batch():
    with pytest.raises(DataError, match=r"loader.batch_size=128 .* 100 training examples: use 100"):
        Order(100, 128, 0, 1)
