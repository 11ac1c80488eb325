"""Patches of two photographs; in most tests of pixels that say where they are."""

import numpy as np
import pytest
import torch

from ddpm.data import photos
from ddpm.data.dataset import DataError
from ddpm.data.photos import Photos


def places(size, split, monkeypatch):
    """Patches whose pixels say where they are, as `place` reads."""
    y, x = np.mgrid[: photos.HEIGHT, : photos.WIDTH]
    each = [np.stack([y % 256, x % 256, 100 * picture + 10 * (y // 256) + x // 256]) for picture in (0, 1)]
    monkeypatch.setattr(photos, "photographs", lambda: np.stack(each).astype(np.uint8))
    return photos.patches.__wrapped__(size, split)


def place(pixels):
    """The picture, row and column of pixels [n, 3, ...]."""
    low_y, low_x, rest = pixels.long().unbind(1)
    return torch.stack([rest // 100, 256 * (rest // 10 % 10) + low_y, 256 * (rest % 10) + low_x], 1)


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_no_pixel_of_a_test_patch_is_in_a_training_patch(size, monkeypatch):
    count = {}
    for split in ("train", "test"):
        patches = places(size, split, monkeypatch)
        corners = place(patches[:, :, 0, 0])
        grid = torch.stack(torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij"))
        some = place(patches[:100])
        assert torch.equal(some[:, 1:], corners[:100, 1:, None, None] + grid)  # a patch is one piece, upright
        assert torch.equal(some[:, 0], corners[:100, 0, None, None].expand_as(some[:, 0]))
        assert torch.equal(place(patches[:, :, -1, -1])[:, 1:], corners[:, 1:] + grid[:, -1, -1])
        count[split] = np.zeros((2, photos.HEIGHT, photos.WIDTH), int)
        for picture, y, x in corners.tolist():
            count[split][picture, y : y + size[0], x : x + size[1]] += 1
    assert count["test"].max() == 1  # tiles
    assert not ((count["train"] > 0) & (count["test"] > 0)).any()
    first, second = count["test"].sum(axis=(1, 2))
    assert first == second  # of both photographs as much
    assert ((count["train"] == 0) & (count["test"] == 0)).mean() < 0.05


def test_test_patches_lie_off_the_grid_of_jpeg_and_training_patches_anywhere_on_it(monkeypatch):
    corners = {split: place(places((16, 16), split, monkeypatch)[:, :, 0, 0])[:, 1:] % 8 for split in ("train", "test")}
    assert corners["test"].unique(dim=0).tolist() == [[4, 4]]
    assert len(corners["train"].unique(dim=0)) == 64


def test_the_first_patches_come_from_both_photographs_and_from_anywhere(monkeypatch):
    first = place(places((16, 16), "test", monkeypatch)[:40, :, 0, 0])
    assert 10 < first[:, 0].sum() < 30
    assert first[:, 1].min() < 60
    assert first[:, 1].max() > 360


def test_pixels_are_those_of_scikit_learn():
    from sklearn.datasets import load_sample_images

    dataset = Photos(32)
    dataset.prepare()
    test = dataset.split("test")
    assert (len(test), dataset.shape) == (104, (3, 32, 32))
    photographs = [np.asarray(image) for image in load_sample_images().images]
    tops, lefts = range(4, 427 - 31, 32), range(324, 452, 32)
    tiles = [image[y : y + 32, x : x + 32].transpose(2, 0, 1) for image in photographs for y in tops for x in lefts]
    assert {tile.tobytes() for tile in tiles} == {patch.numpy().tobytes() for patch in test.__getitems__([*range(104)])}


def test_default():
    dataset = Photos()
    assert (dataset.shape, dataset.horizontal_flip) == ((3, 16, 16), True)
    assert (len(dataset.split("train")), len(dataset.split("test"))) == (44_436, 416)
    assert dataset.fingerprint == "photos 3x16x16, columns 324..451 held out, every 3 pixels"


@pytest.mark.parametrize("size", [0, 129, (16,), (16, 16, 3), (0, 16), (16, 129), (424, 16), (True, 16)])
def test_a_size_that_does_not_fit(size):
    with pytest.raises(DataError, match=r"data\.size=.*from 1 to \[423, 128\]"):
        Photos(size)
