"""The swiss roll: points in the plane on a spiral, the first demonstration of Sohl-Dickstein et al. 2015."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.data.dataset import SPLITS, DataError, Dataset, Examples, InMemory, Split
from ddpm.data.kind import POINTS

SCALE = 17  # the outer end, 4.5 pi, and five deviations of the noise lie within [-1, 1], as pixels do
NOISE = 0.5


class SwissRoll(Dataset):
    """`train_size` points to train on and `test_size` to test on, float32 [n, 2] in [-1, 1].

    They are the same points in every run: the run's seed orders them, but does not draw them.
    """

    name = "swiss_roll"
    shape = (2,)
    event_ndim = 1
    kind = POINTS

    def __init__(self, train_size: int = 10_000, test_size: int = 2_000) -> None:
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size < 1:
                raise DataError(f"data.{name}={size}: it must be at least 1")
        self.sizes: dict[Split, int] = {"train": train_size, "test": test_size}

    @property
    def fingerprint(self) -> str:
        return f"swiss_roll {self.sizes['train']}+{self.sizes['test']} points, noise {NOISE}/{SCALE}"

    def prepare(self) -> None:
        pass

    def split(self, name: Split) -> Examples:
        return InMemory(swiss_roll(self.sizes[name], seed=SPLITS.index(name)))


def swiss_roll(n: int, seed: int) -> Float[Tensor, "{n} 2"]:
    """(a cos a, a sin a) + noise for uniform a in [1.5 pi, 4.5 pi], divided by SCALE."""
    random = np.random.default_rng(seed)
    angle = 1.5 * np.pi * (1 + 2 * random.random(n))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1)
    points += NOISE * random.standard_normal((n, 2))
    return torch.from_numpy((points / SCALE).astype(np.float32))
