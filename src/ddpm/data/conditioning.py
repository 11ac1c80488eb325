"""What a network is told of each example, and how that is had from a dataset: the axis `condition`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from ddpm.config.checks import AT_MOST
from ddpm.data.dataset import SPLITS, DataError, Dataset, Examples, Resident, Split
from ddpm.data.order import permutation
from ddpm.data.pixels import unit
from ddpm.diffusion.condition import Condition
from ddpm.messages import warn


class ConditionedBatch(NamedTuple):
    """Examples as the dataset has them, and what the network is told of them."""

    values: Shaped[Tensor, "b *event"]
    condition: Condition | None


class Conditioning(ABC):
    """A rule for what the network is told of each example.

    Attributes:
        needs: the part of a `Condition` that the network must take; None where it is told nothing.
        drop: the share of examples that are told nothing while training, so that the network is an unconditional one,
            too, as classifier-free guidance needs.
        classes: of which the network can be told one.
    """

    needs: ClassVar[str | None]
    drop: float
    classes: int = 0

    @abstractmethod
    def network_arguments(self, shape: Sequence[int]) -> dict[str, int]:
        """What the constructor of a network for examples of this shape is given besides."""

    @abstractmethod
    def of(self, examples: Examples, indices: Sequence[int], values: Tensor | None = None) -> Condition | None:
        """What is told of these examples of a split, where the split lies; `values` are they, if they were read."""

    @abstractmethod
    def shown(self, images: Dataset, count: int) -> Condition | None:
        """What is told of `count` samples in the pictures of a training run."""

    @abstractmethod
    def check(self, images: Dataset) -> None:
        """Check that both splits hold what is told; they have been prepared.

        Raises:
            DataError: they do not.
        """

    def wanted(self, labels: Sequence[int]) -> Condition:
        """What is told of samples that are to be of these classes.

        Raises:
            ValueError: the network knows no classes, or not these.
        """
        if not self.classes:
            raise ValueError("label: the network was told no classes; train it with condition=label")
        if wrong := [label for label in labels if not 0 <= label < self.classes]:
            raise ValueError(f"label={wrong[0]}: the classes are 0..{self.classes - 1}")
        return Condition(torch.tensor(labels))

    def batch(self, examples: Examples, indices: Sequence[int]) -> ConditionedBatch:
        """Examples of a split, and what is told of them."""
        values = examples.__getitems__(list(indices))
        return ConditionedBatch(values, self.of(examples, indices, values))


@final
class Unconditional(Conditioning):
    """Nothing is told."""

    needs = None
    drop = 0.0

    def network_arguments(self, shape: Sequence[int]) -> dict[str, int]:
        return {}

    def of(self, examples: Examples, indices: Sequence[int], values: Tensor | None = None) -> None:
        return None

    def shown(self, images: Dataset, count: int) -> None:
        return None

    def check(self, images: Dataset) -> None:
        pass


@final
class Label(Conditioning):
    """The class of each example is told, one of `classes`; Ho & Salimans 2022, Algorithm 1, for the share dropped.

    Raises:
        ValueError: `classes` or `drop` is out of range.
    """

    needs = "labels"

    def __init__(self, classes: int, drop: float = 0.1) -> None:
        if classes < 1:
            raise ValueError(f"condition.classes={classes} must be at least 1, or null for those of the data")
        _check_drop(drop)
        self.classes, self.drop = classes, drop

    def network_arguments(self, shape: Sequence[int]) -> dict[str, int]:
        return {"num_classes": self.classes}

    def of(self, examples: Examples, indices: Sequence[int], values: Tensor | None = None) -> Condition:
        assert examples.labels is not None  # `check` has made sure
        labels = examples.labels[torch.as_tensor(indices)]
        return Condition(labels.to(examples.values.device) if isinstance(examples, Resident) else labels)

    def shown(self, images: Dataset, count: int) -> Condition:
        """Every class as often as any other, in ascending order."""
        return Condition(torch.arange(count) * self.classes // count)

    def check(self, images: Dataset) -> None:
        found = {}
        for split in SPLITS:
            labels = images.split(split).labels
            if labels is None:
                whose = f"the {split} split of {images.name}"
                raise DataError(f"condition=label: {whose} has no classes; use condition=none")
            if int(labels.min()) < 0 or (largest := int(labels.max())) >= self.classes:
                raise DataError(
                    f"condition.classes={self.classes}: the {split} split of {images.name} has a label "
                    f"{largest if int(labels.min()) >= 0 else int(labels.min())}, and labels are 0..{self.classes - 1}"
                )
            found[split] = set(labels.tolist())
        if unseen := sorted(found["test"] - found["train"]):
            some = ", ".join(map(str, unseen[:10])) + ", ..." * (len(unseen) > 10)
            warn(
                f"{images.name}: the test split has examples of classes that the train split has not ({some}): what is "
                f"measured of these, the network has not learned"
            )


SOURCES = ("downsample", "gray", "paired")


@final
class FromImage(Conditioning):
    """An image is told of each example, in channels beside x_t: the network learns to undo what made it.

    Args:
        source: "downsample" for means over squares of `factor` pixels, enlarged to the size of the example
            (super-resolution); "gray" for the mean of the channels (colourisation); "paired" for the picture of the
            same name in a second folder, `data.condition_path`.

    Raises:
        ValueError: an unknown source, or a setting out of range.
    """

    needs = "image"

    def __init__(self, source: str = "downsample", factor: int = 4, drop: float = 0.0) -> None:
        if source not in SOURCES:
            raise ValueError(f"condition.source={source} is not one of {', '.join(SOURCES)}")
        if factor < 2:
            raise ValueError(f"condition.factor={factor} must be at least 2")
        _check_drop(drop)
        self.source, self.factor, self.drop = source, factor, drop

    def network_arguments(self, shape: Sequence[int]) -> dict[str, int]:
        return {"condition_channels": 1 if self.source == "gray" else shape[0]}

    def of(self, examples: Examples, indices: Sequence[int], values: Tensor | None = None) -> Condition:
        if self.source == "paired":
            assert examples.partners is not None  # `check` has made sure
            return Condition(image=unit(examples.partners.__getitems__(list(indices))))
        x_0 = unit(examples.__getitems__(list(indices)) if values is None else values)
        if self.source == "gray":
            return Condition(image=x_0.mean(1, keepdim=True))
        coarse = F.avg_pool2d(x_0, self.factor)
        return Condition(image=F.interpolate(coarse, scale_factor=self.factor, mode="nearest"))

    def shown(self, images: Dataset, count: int) -> Condition:
        """This gives what the network is told of the first images of the test split."""
        examples = images.split("test")
        return self.of(examples, [index % len(examples) for index in range(count)])

    def check(self, images: Dataset) -> None:
        channels, height, width = images.shape
        if self.source == "paired" and any(images.split(split).partners is None for split in SPLITS):
            raise DataError(
                "condition.source=paired tells the network the pictures of a second folder: add data=folder and "
                "data.condition_path=FOLDER, where each has the name of its partner"
            )
        if self.source == "gray" and channels == 1:
            raise DataError(f"condition.source=gray: {images.name} is gray already")
        if self.source == "downsample" and (height % self.factor or width % self.factor):
            raise DataError(
                f"condition.factor={self.factor} does not divide {height}x{width}, the size of {images.name}: use "
                f"one that does"
            )


def _check_drop(drop: float) -> None:
    if not 0 <= drop < 1:
        raise ValueError(f"condition.drop={drop} must lie in [0, 1): the share of examples that are told nothing")


@dataclass(frozen=True)
class OfSamples:
    """What samples 0, 1, 2, ... are told: what is told of a split's examples, all of them again and again.

    Each time they come in another order, a function of the seed. So samples have the label frequencies of the split.
    Where nothing is told, the split is not asked for; else the data have been prepared.
    """

    conditioning: Conditioning
    images: Dataset
    split: Split
    seed: int

    @cached_property
    def examples(self) -> Examples:
        return self.images.split(self.split)

    def __call__(self, indices: Sequence[int]) -> Condition | None:
        if self.conditioning.needs is None:
            return None
        n = len(self.examples)
        orders = {epoch: permutation(n, self.seed, epoch) for epoch in {index // n for index in indices}}
        return self.conditioning.of(self.examples, [int(orders[index // n][index % n]) for index in indices])


def classes_of(images: Dataset) -> int:
    """The number of a dataset's classes.

    Raises:
        DataError: it has none, or more than a network can be told.
    """
    if not images.num_classes:
        raise DataError(
            f"condition=label: {images.name} has no classes; give it some (each picture in one of two or more "
            "sub-folders), or use condition=none"
        )
    if images.num_classes > (most := AT_MOST["condition.classes"]):
        raise DataError(
            f"condition=label: {images.name} has labels up to {images.num_classes - 1}: classes are whole numbers "
            f"0..K-1, with K at most {most:,}"
        )
    return images.num_classes
