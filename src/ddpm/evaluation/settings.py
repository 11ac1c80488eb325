"""What an evaluation is asked to measure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ddpm.data.dataset import SPLITS, Dataset, Split

WhichSplit = Literal["train", "test", "both"]


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured, on how much data, with which random draws.

    Args:
        metrics: names of metrics of samples, and of the bound.
        fid_split: the real images against which samples are held.
        bound_images: how many images of `bound_split` the bound is measured on; None for all.
        evaluations: of the network for the bound of one image; None for one at each t.
        chunk: images that are computed together.
        weights: which of a run's sets of weights is measured, in words for the protocol.
        section: of the configuration that says so, for messages.
    """

    metrics: Sequence[str]
    num_samples: int
    fid_split: WhichSplit
    bound_split: WhichSplit
    bound_images: int | None
    evaluations: int | None
    decoder: str
    chunk: int
    precision: str
    seed: int
    weights: str
    section: str = "evaluation"

    @property
    def reference_splits(self) -> list[Split]:
        """The splits against which samples are held, the one that the paper quotes first."""
        return _splits(self.fid_split, "train")

    @property
    def bound_splits(self) -> list[Split]:
        """The splits on which the bound is measured, the one that the paper quotes first."""
        return _splits(self.bound_split, "test")

    def bound_count(self, images: Dataset, split: Split) -> int:
        """How many images of a split the bound is measured on."""
        whole = len(images.split(split))
        return min(whole, self.bound_images or whole)


def _splits(which: WhichSplit, first: Split) -> list[Split]:
    return sorted(SPLITS, key=lambda split: split != first) if which == "both" else [which]
