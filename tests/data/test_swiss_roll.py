import pytest
import torch

from ddpm.data.dataset import DataError
from ddpm.data.swiss_roll import SwissRoll


def test_points_lie_on_the_spiral_and_in_the_square():
    roll = SwissRoll()
    roll.prepare()
    points = roll.split("train").__getitems__(list(range(10_000)))
    assert (points.dtype, points.shape, roll.shape, roll.kind.name) == (torch.float32, (10_000, 2), (2,), "points")
    assert points.abs().max() < 1
    # A point at angle a on the spiral has radius a: the two agree up to full turns and noise.
    x, y = (17 * points).double().unbind(1)
    off = torch.remainder(torch.hypot(x, y) - torch.atan2(y, x) + torch.pi, 2 * torch.pi) - torch.pi
    assert off.abs().mean() < 0.5
    assert float(off.std()) == pytest.approx(0.5, abs=0.03)  # the noise along the radius, and a little of that across


def test_the_same_points_always_and_others_to_test_on():
    first, second = SwissRoll(100, 50), SwissRoll(100, 50)
    train = first.split("train").__getitems__(list(range(100)))
    assert torch.equal(train, second.split("train").__getitems__(list(range(100))))
    halves = SwissRoll(50, 50)
    assert not torch.equal(*(halves.split(split).__getitems__(list(range(50))) for split in ("train", "test")))
    assert first.fingerprint == "swiss_roll 100+50 points, noise 0.5/17"


def test_no_points():
    with pytest.raises(DataError, match=r"data\.test_size=0"):
        SwissRoll(test_size=0)
