"""scikit-learn's handwritten digits: 1,797 real 8 x 8 images that come with the package.

A copy of the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998. The 17 gray
levels 0..16 become uint8 by round(v * 255 / 16), so that bits/dim compares with itself only.
"""

import functools

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ddpm.data.dataset import Dataset, Examples, InMemory, Split

TEST_SIZE = 297


@functools.cache
def load_digits_split() -> tuple[
    UInt8[Tensor, "1500 1 8 8"], Int64[Tensor, "1500"], UInt8[Tensor, "297 1 8 8"], Int64[Tensor, "297"]
]:
    """Train images and labels, test images and labels: a fixed, class-balanced split."""
    from sklearn.datasets import load_digits  # 1.5 s: only those who use the digits pay for it
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_SIZE, random_state=0, stratify=labels
    )
    return (
        torch.from_numpy(train),
        torch.from_numpy(train_labels),
        torch.from_numpy(test),
        torch.from_numpy(test_labels),
    )


class Digits(Dataset):
    """1,500 images to train on and 297 to test on, 1 x 8 x 8."""

    name = "digits"
    shape = (1, 8, 8)
    classes = 10
    fingerprint = "digits 1500+297 1x8x8"

    def prepare(self) -> None:
        pass

    def split(self, name: Split) -> Examples:
        train, train_labels, test, test_labels = load_digits_split()
        return InMemory(train, train_labels) if name == "train" else InMemory(test, test_labels)
