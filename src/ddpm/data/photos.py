"""Colour patches of the two photographs that come with scikit-learn, china.jpg and flower.jpg: 427 x 640, 256 levels.

A band of columns of both is held out. Test patches tile it, and training patches overlap each other beside it, so that
no pixel of a test patch is in any training patch.

The photographs are JPEG files (1.9 and 1.4 bits per dimension, colour at full resolution), whose decoded pixels still
show the grid of 8 x 8 blocks. A JPEG encoder that hits the same grid again gets them for less than others can: test
patches lie half a block off it, and training patches at all places within a block.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from ddpm.data.dataset import DataError, Dataset, Examples, InMemory, Split

HEIGHT, WIDTH = 427, 640
BAND = (324, 452)  # the columns that are held out: an end of the pagoda, lake and bushes; half of the flower
TOP = 4  # the first row of test patches
STEP = 3  # pixels from one training patch to the next, down and to the right
ORDER = 0  # the seed of the order of patches, so that the first of them come from anywhere


class Photos(Dataset):
    """Patches of 3 x `size`, trained on with flips; at 16 x 16, 44,436 to train on and 416 to test on.

    Args:
        size: (height, width) of a patch, or one number for both.

    Raises:
        DataError: no such patch fits into the band that is held out.
    """

    name = "photos"
    horizontal_flip = True

    def __init__(self, size: int | Sequence[int] = (16, 16)) -> None:
        sides, most = [size, size] if isinstance(size, int) else list(size), [HEIGHT - TOP, BAND[1] - BAND[0]]
        whole = len(sides) == 2 and all(type(side) is int for side in sides)
        if not whole or not (1 <= sides[0] <= most[0] and 1 <= sides[1] <= most[1]):
            raise DataError(
                f"data.size={size} must be [height, width], from 1 to {most}, the part of the photographs that is held "
                "out: as data.size=[32,32]"
            )
        self.size = (sides[0], sides[1])
        self.shape = (3, *self.size)

    @property
    def fingerprint(self) -> str:
        held_out = f"columns {BAND[0]}..{BAND[1] - 1} held out"
        return f"photos 3x{self.size[0]}x{self.size[1]}, {held_out}, every {STEP} pixels"

    def prepare(self) -> None:
        pass

    def split(self, name: Split) -> Examples:
        return InMemory(patches(self.size, name))


@functools.lru_cache(maxsize=4)
def patches(size: tuple[int, int], split: Split) -> UInt8[Tensor, "n 3 h w"]:
    """All patches of a split, in an order that is always the same and mixes photographs and places."""
    height, width = size
    first, last = BAND
    if split == "test":
        parts, step = [photographs()[:, :, TOP:, first:last]], size
    else:
        parts, step = [photographs()[:, :, :, :first], photographs()[:, :, :, last:]], (STEP, STEP)
    cut = [
        sliding_window_view(part, (height, width), axis=(2, 3))[:, :, :: step[0], :: step[1]]
        .transpose(0, 2, 3, 1, 4, 5)
        .reshape(-1, 3, height, width)
        for part in parts
    ]
    every = np.concatenate(cut)
    return torch.from_numpy(every[np.random.default_rng(ORDER).permutation(len(every))])


@functools.cache
def photographs() -> UInt8[np.ndarray, "2 3 427 640"]:
    """Both photographs."""
    from sklearn.datasets import load_sample_images  # 1.5 s: only those who use the photographs pay for it

    return np.stack(load_sample_images().images).transpose(0, 3, 1, 2)
