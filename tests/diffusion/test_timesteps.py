from collections import deque
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from ddpm.diffusion.timesteps import LossSecondMoment, Uniform, grid


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def warm(T=20, history=3, **kwargs):
    """Every t has its history; the loss falls with t."""
    timesteps = LossSecondMoment(T, history, **kwargs)
    for _ in range(history):
        timesteps.update(torch.arange(1, T + 1), 1 / torch.arange(1, T + 1))
    return timesteps


@pytest.mark.parametrize("timesteps", [Uniform(20), LossSecondMoment(20)], ids=["uniform", "second_moment"])
def test_begins_uniform_on_1_to_T(timesteps):
    t, weight = timesteps.sample(20_000, rng())
    assert t.dtype == torch.int64
    assert (t.min().item(), t.max().item()) == (1, 20)
    assert bool((weight == 1).all())
    share = torch.bincount(t, minlength=21)[1:] / len(t)
    torch.testing.assert_close(share, torch.full((20,), 0.05), rtol=0, atol=4 * (0.05 / 20_000) ** 0.5)


def test_draws_follow_the_second_moment_of_the_loss():
    timesteps = warm()
    root = 1 / torch.arange(1, 21, dtype=torch.float64)
    want = 0.999 * root / root.sum() + 0.001 / 20
    torch.testing.assert_close(timesteps.probabilities(), want, rtol=1e-6, atol=0)
    t, _ = timesteps.sample(50_000, rng())
    share = torch.bincount(t, minlength=21)[1:].double() / len(t)
    torch.testing.assert_close(share, want, rtol=0, atol=4 * (0.25 / 50_000) ** 0.5)


@given(seed=st.integers(0, 2**31), uniform_share=st.floats(0.001, 1))
def test_weights_keep_every_mean_unbiased(seed, uniform_share):
    timesteps = warm(uniform_share=uniform_share)
    anything = torch.randn(21, generator=rng(seed), dtype=torch.float64)
    t, weight = timesteps.sample(64, rng(seed))
    p = timesteps.probabilities()
    torch.testing.assert_close(weight.double(), 1 / (20 * p[t - 1]), rtol=1e-6, atol=0)
    expectation = (p * (1 / (20 * p)) * anything[1:]).sum()  # of weight * loss under p
    torch.testing.assert_close(expectation, anything[1:].mean())


def test_the_weighted_loss_is_that_of_uniform_timesteps():
    timesteps = warm()
    loss = torch.cat([torch.zeros(1), 1 / torch.arange(1, 21)])
    t, weight = timesteps.sample(20_000, rng())
    estimate = weight * loss[t]
    assert estimate.mean().item() == pytest.approx(loss[1:].mean().item(), rel=1e-3)
    assert estimate.std() < 0.1 * loss[1:].std()  # what it is for: the product is nearly constant


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 10, width=32)), min_size=1, max_size=12), max_size=8)
)
def test_keeps_the_last_losses_of_every_t(batches):
    timesteps = LossSecondMoment(4, history=3)
    literal = {t: deque(maxlen=3) for t in range(1, 5)}
    for batch in batches:
        timesteps.update(*(torch.tensor(column) for column in zip(*batch, strict=True)))
        for t, loss in batch:
            literal[t].append(loss)
    for t, losses in literal.items():
        assert sorted(timesteps.losses[t].tolist()) == sorted([*losses] + [0.0] * (3 - len(losses)))
    full = all(len(losses) == 3 for losses in literal.values())
    if not full:
        assert bool((timesteps.probabilities() == 0.25).all())
    else:
        root = np.array([np.sqrt(np.mean(np.square(losses))) for losses in literal.values()]) + 1e-30
        np.testing.assert_allclose(timesteps.probabilities(), 0.999 * root / root.sum() + 0.001 / 4, rtol=1e-6)


class Places(TorchFunctionMode):
    """Notes the places of a tensor that are written by index."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.Tensor.__setitem__ and isinstance(arguments[1], tuple):
            self.written = list(zip(*(index.tolist() for index in arguments[1]), strict=True))
        return function(*arguments, **(keywords or {}))


def test_no_place_is_written_twice_at_once():
    """A GPU writes in any order, and the last losses are to stay; row 0 is emptied afterwards."""
    timesteps, t = LossSecondMoment(4, history=3), torch.tensor([1] * 7 + [2] * 3 + [3] * 4)
    with Places() as places:
        timesteps.update(t, torch.arange(14.0))
    kept = [place for place in places.written if place[0]]
    assert len(kept) == len(set(kept)) == 3 * 3
    assert [sorted(row.tolist()) for row in timesteps.losses] == [[0] * 3, [4, 5, 6], [7, 8, 9], [11, 12, 13], [0] * 3]


def test_passes_over_losses_that_are_not_finite():
    timesteps = warm()
    before = timesteps.probabilities()
    timesteps.update(torch.tensor([3, 4, 5]), torch.tensor([float("nan"), float("inf"), -float("inf")]))
    assert torch.equal(timesteps.probabilities(), before)


def test_is_uniform_if_every_loss_is_0():
    timesteps = LossSecondMoment(4, history=1)
    timesteps.update(torch.arange(1, 5), torch.zeros(4))
    torch.testing.assert_close(timesteps.probabilities(), torch.full((4,), 0.25).double())


@pytest.mark.parametrize("timesteps", [Uniform(20), warm()], ids=["uniform", "second_moment"])
def test_draws_depend_on_the_generator_only(timesteps):
    before = torch.get_rng_state()
    first, second = timesteps.sample(50, rng(3)), timesteps.sample(50, rng(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], timesteps.sample(50, rng(4))[0])
    assert torch.equal(before, torch.get_rng_state())


def test_the_history_is_in_the_checkpoint():
    timesteps = warm()
    copy = LossSecondMoment(20, history=3)
    copy.load_state_dict(timesteps.state_dict())
    for each in (timesteps, copy):
        each.update(torch.tensor([1, 1, 7]), torch.tensor([5.0, 6.0, 7.0]))
    assert torch.equal(copy.sample(100, rng())[0], timesteps.sample(100, rng())[0])
    assert not Uniform(20).state_dict()


def test_only_the_one_that_learns_says_so():
    assert LossSecondMoment.adaptive
    assert not Uniform.adaptive
    assert Uniform(5).update(torch.tensor([1]), torch.tensor([1.0])) is None


@pytest.mark.parametrize("bad", [{"history": 0}, {"uniform_share": 0.0}, {"uniform_share": 1.5}])
def test_refuses_settings_that_cannot_work(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LossSecondMoment(10, **bad)


@given(first=st.integers(1, 5), length=st.integers(2, 1000), share=st.floats(0, 1), power=st.floats(1, 6))
def test_a_grid_has_distinct_points_and_both_ends(first, length, share, power):
    n = 2 + int(share * (length - 1))  # up to every number there is
    points = grid(first, first + length, n, lambda u: u**power)
    assert len(points) == n
    assert (points[0], points[-1]) == (first, first + length)
    assert all(a < b for a, b in pairwise(points))


def test_a_grid_s_points_are_the_nearest_to_the_curve():
    points = grid(1, 1000, 12, lambda u: u**2)
    assert all(abs(point - (1 + 999 * (i / 11) ** 2)) <= 0.5 for i, point in enumerate(points))


@pytest.mark.parametrize(
    ("curve", "points"),
    [(lambda u: min(1.0, 9 * u), [1, 8, 9, 10]), (lambda u: float(u == 1), [1, 2, 3, 10])],
    ids=["steep at first", "steep at last"],
)
def test_where_a_curve_asks_for_a_number_again_its_neighbours_are_taken(curve, points):
    assert grid(1, 10, 4, curve) == points


def test_a_grid_of_one_point_is_the_last():
    assert grid(1, 1000, 1, lambda u: u) == [1000]
