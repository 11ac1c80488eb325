"""Examples that a program hands over, an array or a PyTorch dataset: a configuration says what they are like."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from ddpm.data.dataset import DataError, Dataset, Examples, InMemory, Split
from ddpm.data.kind import IMAGES, POINTS

HELD_OUT = 10  # every tenth example is kept for testing


class Given(Dataset):
    """Examples that were handed over in Python, as the configuration of their run describes them: without a value.

    Args:
        name: what the data are called.
        shape: of an example: [channels, height, width], or [d] for points.
        content: the fingerprint of all examples.
    """

    def __init__(self, name: str, shape: Sequence[int], content: str) -> None:
        self.name, self.shape, self._content = name, tuple(shape), content
        self.kind = IMAGES if len(self.shape) == 3 else POINTS

    @property
    def fingerprint(self) -> str:
        return self._content

    def prepare(self) -> None:
        raise DataError(
            f"{self.name} was handed over in Python, and no file says where it is: use ddpm.train(..., dataset=...) "
            "and ddpm.evaluate(..., dataset=...)"
        )

    def split(self, name: Split) -> Examples:
        self.prepare()
        raise AssertionError


class Array(Given):
    """Examples in memory: uint8 images [n, channels, height, width], or float points [n, d].

    Every tenth example is kept for testing, unless there are some of their own for it.

    Raises:
        DataError: the examples are none of these, or fewer than two in a split.
    """

    def __init__(self, train: Tensor, test: Tensor | None = None, name: str = "given") -> None:
        if test is None:
            held_out = torch.arange(len(train)) % HELD_OUT == HELD_OUT - 1
            train, test = train[~held_out], train[held_out]
        self.examples: dict[Split, Tensor] = {"train": train, "test": test}
        content = hashlib.sha256()
        for split, values in self.examples.items():
            _check(values, split)
            content.update(f"{split} {tuple(values.shape)} ".encode() + values.numpy().tobytes())
        if train.shape[1:] != test.shape[1:]:
            raise DataError(f"examples to train on are {list(train.shape[1:])}, and to test on {list(test.shape[1:])}")
        super().__init__(name, train.shape[1:], f"{name} {len(train)}+{len(test)} {content.hexdigest()[:16]}")

    def prepare(self) -> None:
        """Everything is in memory."""

    def split(self, name: Split) -> Examples:
        return InMemory(self.examples[name])


def of(data: Any, name: str = "given") -> Dataset:
    """A dataset of ours from whatever a program has.

    Args:
        data: a dataset of ours; an array or a tensor of examples; a PyTorch dataset of such, whose items may also be
            (example, label); or a pair of any of these, to train and to test on. Images are uint8
            [channels, height, width].

    Raises:
        DataError: it is none of these.
    """
    if isinstance(data, Dataset):
        return data
    train, test = data if isinstance(data, tuple) else (data, None)
    return Array(_tensor(train), None if test is None else _tensor(test), name)


def _tensor(data: Any) -> Shaped[Tensor, "n *event"]:
    if isinstance(data, Tensor):
        return data.detach().cpu().contiguous()
    if isinstance(data, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(data))
    if isinstance(data, str | bytes | dict) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(f"a {type(data).__name__} is no data: give an array, a tensor, or a PyTorch dataset")
    items = (data[index] for index in range(len(data)))
    first = [np.asarray(item[0] if isinstance(item, tuple | list) else item) for item in items]
    if len({(each.shape, each.dtype) for each in first}) != 1:
        raise DataError("the examples of a dataset must be of one shape and one type, and there must be some")
    return torch.from_numpy(np.stack(first))


def _check(values: Tensor, split: Split) -> None:
    images, points = values.dtype == torch.uint8 and values.ndim == 4, values.is_floating_point() and values.ndim == 2
    if not images and not points:
        raise DataError(
            f"the {split} examples are {values.dtype} {list(values.shape)}: images must be torch.uint8 [n, channels, "
            "height, width], from 0 to 255; points must be float [n, d], about -1 to 1"
        )
    if len(values) < 2:
        raise DataError(f"there are {len(values)} {split} examples: at least 2 are needed")
