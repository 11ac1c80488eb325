"""A dataset that is an array: images of stripes in a random direction."""

import numpy as np
import torch

from ddpm.data.dataset import Dataset, Examples, InMemory, Split


class Stripes(Dataset):
    """`count` gray images of 16 x 16 pixels to train on, and a fifth as many to test on."""

    name = "stripes"
    shape = (1, 16, 16)

    def __init__(self, count: int = 1000) -> None:
        if count < 10:
            raise ValueError(f"data.count={count} must be at least 10")
        self.count = count

    def prepare(self) -> None:
        """There is nothing to download."""

    def split(self, name: Split) -> Examples:
        random = np.random.default_rng(["train", "test"].index(name))
        angle = random.uniform(0, np.pi, size=(self.count if name == "train" else self.count // 5, 1, 1))
        y, x = np.mgrid[:16, :16]
        waves = np.sin(np.cos(angle) * x + np.sin(angle) * y)
        return InMemory(torch.from_numpy(np.uint8(np.round(127.5 + 127.5 * waves))[:, None]))

    @property
    def fingerprint(self) -> str:
        return f"stripes {self.count}"
