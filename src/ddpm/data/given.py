"""Examples that a program hands over, an array or a PyTorch dataset: a configuration says what they are like."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from ddpm.config.checks import AT_MOST
from ddpm.data.dataset import DataError, Dataset, Examples, InMemory, Split
from ddpm.data.kind import IMAGES, POINTS
from ddpm.messages import printable, warn

MOST_CLASSES = AT_MOST["condition.classes"]
HELD_OUT = 10  # every tenth example is kept for testing


class Given(Dataset):
    """Examples that were handed over in Python, as the configuration of their run describes them: without a value.

    Args:
        name: what the data are called.
        shape: of an example: [channels, height, width], or [2] for points in the plane.
        content: the fingerprint of all examples.
        num_classes: how many classes they have, 0 for none.
    """

    classes = None
    event_ndim = 0

    def __init__(self, name: str, shape: Sequence[int], content: str, num_classes: int = 0) -> None:
        self.name, self.shape, self._content, self._num_classes = name, tuple(shape), content, num_classes
        self.kind = IMAGES if len(self.shape) == 3 else POINTS

    @property
    def fingerprint(self) -> str:
        return self._content

    @property
    def num_classes(self) -> int:
        return self._num_classes

    def prepare(self) -> None:
        raise DataError(
            f"{self.name} was handed over in Python, and no file says where it is: use ddpm.train(..., dataset=...) "
            "and ddpm.evaluate(..., dataset=...)"
        )

    def split(self, name: Split) -> Examples:
        self.prepare()
        raise AssertionError


class Array(Given):
    """Examples in memory: uint8 images [n, channels, height, width], or float points [n, 2].

    Every tenth example is kept for testing, unless there are some of their own for it.

    Raises:
        DataError: the examples are none of these, or fewer than two in a split; or not all of them have a class.
    """

    def __init__(self, train: "Part", test: "Part | None" = None, name: str = "given") -> None:
        if test is None:
            held_out = torch.arange(len(train.values)) % HELD_OUT == HELD_OUT - 1
            train, test = train.chosen(~held_out), train.chosen(held_out)
        self.examples: dict[Split, Part] = {"train": train, "test": test}
        content, classes = hashlib.sha256(), 0
        for split, part in self.examples.items():
            _check(part, split)
            content.update(f"{split} {tuple(part.values.shape)} ".encode() + part.values.numpy().tobytes())
            if part.labels is not None:
                content.update(part.labels.numpy().tobytes())
                classes = max(classes, 1 + int(part.labels.max()))
        if (train.labels is None) != (test.labels is None):
            raise DataError(
                "only some of the examples have a class: those to train on and to test on need one, or none"
            )
        shapes = [list(part.values.shape[1:]) for part in (train, test)]
        if shapes[0] != shapes[1]:
            raise DataError(f"examples to train on are {shapes[0]}, and to test on {shapes[1]}")
        counts = f"{len(train.values)}+{len(test.values)}"
        super().__init__(name, shapes[0], f"{name} {counts} {content.hexdigest()[:16]}", classes)

    def prepare(self) -> None:
        """Everything is in memory."""

    def split(self, name: Split) -> Examples:
        return InMemory(*self.examples[name])


class Part(NamedTuple):
    """The examples of a split, and the class of each if they have one."""

    values: Shaped[Tensor, "n *event"]
    labels: Int64[Tensor, " n"] | None = None

    def chosen(self, which: Bool[Tensor, " n"]) -> "Part":
        """These of the examples."""
        return Part(self.values[which], None if self.labels is None else self.labels[which])


def of(data: Any, name: str = "given") -> Dataset:
    """A dataset of ours from whatever a program has.

    Args:
        data: a dataset of ours; an array or a tensor of examples; a PyTorch dataset of such, whose items may also be
            (example, label) with a label in 0..K-1; or a pair of any of these, to train and to test on. Images are
            uint8 [channels, height, width].

    Raises:
        DataError: it is none of these.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple) and len(data) != 2:
        raise DataError(f"a tuple of {len(data)} is no data: give examples, or a pair to train and to test on")
    train, test = data if isinstance(data, tuple) else (data, None)
    return Array(_part(train), None if test is None else _part(test), name)


def _part(data: Any) -> Part:
    if isinstance(data, Tensor):
        return Part(_exact(data.detach().cpu().contiguous()))
    if isinstance(data, np.ndarray):
        if data.dtype.kind not in "biufc":
            raise DataError(f"an array of {data.dtype} is no data: give one of numbers")
        return Part(_exact(torch.from_numpy(np.ascontiguousarray(data))))
    unnumbered = torch.utils.data.Dataset.__getitem__  # which only raises
    if isinstance(data, torch.utils.data.Dataset) and type(data).__getitem__ is unnumbered:
        raise DataError(
            f"a {type(data).__name__} cannot be asked for an example by its number: give a dataset that has "
            "__getitem__ and __len__, or for an IterableDataset the list of its examples"
        )
    if isinstance(data, str | bytes | dict) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(f"a {type(data).__name__} is no data: give an array, a tensor, or a PyTorch dataset")
    items = [data[index] for index in range(len(data))]
    first = [np.asarray(item[0] if isinstance(item, tuple | list) else item) for item in items]
    if len({(each.shape, each.dtype) for each in first}) != 1:
        raise DataError("the examples of a dataset must be of one shape and one type, and there must be some")
    if first[0].dtype.kind not in "biuf":
        raise DataError(
            f"the items of the dataset are {type(items[0]).__name__}: give images as arrays or tensors, or pairs of "
            "such and a label"
        )
    return Part(_exact(torch.from_numpy(np.stack(first))), _labels(items))


def _exact(values: Tensor) -> Tensor:
    """Points are float32, as networks are; the rest is as it is."""
    return values.float() if values.is_floating_point() and values.ndim == 2 else values


def _labels(items: Sequence[Any]) -> Int64[Tensor, " n"] | None:
    """The second of each item, if every item has one and all are classes; a warning says which is none."""
    if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        return None
    second = [np.asarray(item[1]) for item in items]
    for index, each in enumerate(second):
        if each.ndim or each.dtype.kind not in "iu" or not 0 <= each < MOST_CLASSES:
            shown = f"{each.dtype} {list(each.shape)}" if each.ndim else printable(each)
            warn(
                f"what stands beside the examples is left out: classes are whole numbers 0..K-1, with K at most "
                f"{MOST_CLASSES:,}, and that of example {index} is {shown}"
            )
            return None
    return torch.from_numpy(np.stack(second).astype(np.int64))


def _check(part: Part, split: Split) -> None:
    values = part.values
    images, points = (
        values.dtype == torch.uint8 and values.ndim == 4,
        values.is_floating_point() and values.shape[1:] == (2,),
    )
    if not images and not points:
        raise DataError(
            f"the {split} examples are {values.dtype} {list(values.shape)}: images must be torch.uint8 [n, channels, "
            "height, width], from 0 to 255; points must be float [n, 2], about -1 to 1"
        )
    if points and not values.isfinite().all():
        raise DataError(f"the {split} examples hold numbers that are not finite: leave these points out")
    if images and values.shape[3] <= 4 < min(values.shape[1:3]):
        raise DataError(
            f"the {split} examples are {list(values.shape)}, with channels last as it seems: put them first, as "
            "images.transpose(0, 3, 1, 2) does with an array of numpy"
        )
    if len(values) < 2:
        raise DataError(f"there are {len(values)} {split} examples: at least 2 are needed")
    if part.labels is not None and len(wrong := part.labels[(part.labels < 0) | (part.labels >= MOST_CLASSES)]):
        raise DataError(
            f"the {split} labels hold {int(wrong[0])}: classes are whole numbers 0..K-1, with K at most "
            f"{MOST_CLASSES:,}"
        )
