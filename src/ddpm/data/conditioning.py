"""What a network is told of each example, and how that is had from a dataset: the axis `condition`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Shaped
from torch import Tensor

from ddpm.data.dataset import SPLITS, DataError, Dataset, Examples, Resident
from ddpm.data.order import permutation
from ddpm.diffusion.condition import Condition


class Batch(NamedTuple):
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

    @property
    @abstractmethod
    def network_arguments(self) -> dict[str, int]:
        """What the network's constructor is given besides the shape of the data."""

    @abstractmethod
    def of(self, examples: Examples, indices: Sequence[int]) -> Condition | None:
        """What is told of these examples of a split, where the split lies."""

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

    def batch(self, examples: Examples, indices: Sequence[int]) -> Batch:
        """Examples of a split, and what is told of them."""
        return Batch(examples.__getitems__(list(indices)), self.of(examples, indices))


@final
class Unconditional(Conditioning):
    """Nothing is told."""

    needs = None
    drop = 0.0

    @property
    def network_arguments(self) -> dict[str, int]:
        return {}

    def of(self, examples: Examples, indices: Sequence[int]) -> None:
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
        if not 0 <= drop < 1:
            raise ValueError(f"condition.drop={drop} must lie in [0, 1): the share of labels that are dropped")
        self.classes, self.drop = classes, drop

    @property
    def network_arguments(self) -> dict[str, int]:
        return {"num_classes": self.classes}

    def of(self, examples: Examples, indices: Sequence[int]) -> Condition:
        assert examples.labels is not None  # `check` has made sure
        labels = examples.labels[torch.as_tensor(indices)]
        return Condition(labels.to(examples.values.device) if isinstance(examples, Resident) else labels)

    def shown(self, images: Dataset, count: int) -> Condition:
        """Every class as often as any other, in ascending order."""
        return Condition(torch.arange(count) * self.classes // count)

    def check(self, images: Dataset) -> None:
        for split in SPLITS:
            labels = images.split(split).labels
            if labels is None:
                raise DataError(f"condition=label: {images.name} has no classes; use condition=none")
            if int(labels.min()) < 0 or (largest := int(labels.max())) >= self.classes:
                raise DataError(
                    f"condition.classes={self.classes}: the {split} split of {images.name} has a label "
                    f"{largest if int(labels.min()) >= 0 else int(labels.min())}, and labels are 0..{self.classes - 1}"
                )


@dataclass(frozen=True)
class OfSamples:
    """What samples 0, 1, 2, ... are told: what is told of a split's examples, all of them again and again.

    Each time they come in another order, a function of the seed. So samples have the label frequencies of the split.
    """

    conditioning: Conditioning
    examples: Examples
    seed: int

    def __call__(self, indices: Sequence[int]) -> Condition | None:
        if self.conditioning.needs is None:
            return None
        n = len(self.examples)
        orders = {epoch: permutation(n, self.seed, epoch) for epoch in {index // n for index in indices}}
        return self.conditioning.of(self.examples, [int(orders[index // n][index % n]) for index in indices])


def classes_of(images: Dataset) -> int:
    """The number of a dataset's classes.

    Raises:
        DataError: it has none.
    """
    if not images.num_classes:
        raise DataError(
            f"condition=label: {images.name} has no classes; give it some (each picture in one of two or more "
            "sub-folders), or use condition=none"
        )
    return images.num_classes
