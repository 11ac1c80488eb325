import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.data.pixels import flip, to_uint8, to_unit, unit


def test_round_trip_is_exact():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_unit(levels)), levels)


def test_ends_and_centre():
    assert to_unit(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
    assert to_uint8(torch.tensor([-7.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]


@given(st.integers(0, 255), st.floats(-0.499, 0.499))
def test_a_value_goes_to_the_nearest_level(level: int, offset: float):
    x = torch.tensor([(level + offset) / 127.5 - 1], dtype=torch.float64)
    assert to_uint8(x).item() == level


def test_half_precision_is_widened_before_it_is_rounded():
    x = to_unit(torch.arange(256, dtype=torch.uint8)).to(torch.bfloat16)
    assert torch.equal(to_uint8(x), to_uint8(x.float()))


def test_points_stay_as_they_are():
    points = torch.randn(3, 2)
    assert torch.equal(unit(points), points)


def test_flip_mirrors_the_images_that_are_named():
    images = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).reshape(2, 3, 2, 4)
    mirrored = flip(images, torch.tensor([True, False]))
    assert torch.equal(mirrored[0], images[0].flip(-1))
    assert torch.equal(mirrored[1], images[1])
