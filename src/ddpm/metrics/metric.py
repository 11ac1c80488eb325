"""The contract of a metric of samples, and what the metrics share.

A metric is one class and one file conf/metric/NAME.yaml with `# @package evaluation.NAME`, its `_target_` and its
settings. `evaluation.metrics` chooses by NAME what is measured.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torchmetrics
from jaxtyping import Float, Int64
from torch import Tensor

from ddpm.data.dataset import Split
from ddpm.diffusion.wide import with_float64
from ddpm.metrics.features import Features
from ddpm.metrics.statistics import FeatureStatistics, InOrder

SEED = 2020  # torch-fidelity's, of the permutation of IS and the subsets of KID


@dataclass(frozen=True)
class Reference:
    """Real images of a split: mean and covariance of all their features, and some of the features themselves."""

    split: Split
    statistics: FeatureStatistics
    pool: Float[Tensor, "n d"] | None = None
    suffix: str = ""  # of the names of metrics held against it
    labels: Int64[Tensor, " n"] | None = None  # the classes of `pool`, where the data have classes

    @property
    def some_features(self) -> Float[Tensor, "n d"]:
        assert self.pool is not None, "only moments were computed"
        return self.pool


class SampleMetric(ABC):
    """A metric of a set of images, from the features that an extractor finds in each.

    Every process calls `begin`, then `update` with the images that it has made, then `compute`, which reduces over the
    processes and gives all of them the same numbers. The same object may begin again.

    A class states `quantities`, `settings` and `needs_reference` itself, as literals, because tables, sweeps and
    checks read them from the source without importing torch. Its constructor takes the settings, refuses a value out of
    range with a ValueError that names it (`check_whole`), and keeps each as an attribute of the same name.
    """

    # By the name in results.json: `title`; `digits` after the point; which way is `better`, higher or lower (None: it
    # is not ranked); optionally `unit`; the part that is its own `error`, and what that is (`error_is`).
    quantities: ClassVar[dict[str, dict[str, Any]]]
    # The constructor's arguments, each with its name in the protocol; another value is then another protocol.
    settings: ClassVar[dict[str, str]]
    needs_reference: ClassVar[bool]  # samples are held against real images
    needs_logits: ClassVar[bool] = False  # of the extractor, which must be a classifier
    needs_labels: ClassVar[bool] = False  # of the images, in `Features.labels`: of samples, what they were told
    needs_pool: ClassVar[bool] = False  # features of as many real images as there are samples, not moments alone
    remedy: ClassVar[str] = ""  # what to do, beside drawing more, where there are too few images

    @property
    @abstractmethod
    def fewest(self) -> int:
        """Images without which the metric is not defined."""

    @abstractmethod
    def accumulator(self, width: int) -> torchmetrics.Metric:
        """What accumulates features of `width` numbers and reduces them over processes, empty."""

    @abstractmethod
    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        """Accumulate the features of a batch of images; `indices` are their numbers among all images."""

    @abstractmethod
    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        """The numbers of n images for each of `quantities`: its `value`, and its error where it has one.

        Args:
            n: how many images all processes have seen together.
            reference: the real images to hold them against; None where `needs_reference` is False.
        """

    def begin(self, width: int, device: torch.device | str = "cpu") -> None:
        """Forget what was seen; the features to come have `width` numbers and are accumulated on `device`.

        Sums in float64 are kept on the CPU where the device has none.
        """
        self.seen: torchmetrics.Metric = self.accumulator(width).to(with_float64(device))  # what `update` accumulates

    def notes(self, metrics: dict[str, dict[str, Any]], real: dict[str, dict[str, Any]]) -> list[str]:
        """What to know before quoting the metric, a line each, given all results of the model and of real images."""
        return []

    @property
    def chosen(self) -> dict[str, Any]:
        """The values of the settings, by name."""
        return {name: getattr(self, name) for name in self.settings}

    @property
    def protocol(self) -> dict[str, Any]:
        """The metric's part of the protocol."""
        return {stated: getattr(self, name) for name, stated in self.settings.items()}


class InOrderMetric(SampleMetric):
    """A metric that is computed from every image's logits or pooled features, in the order of the images."""

    def accumulator(self, width: int) -> InOrder:
        return InOrder()

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        rows = features.logits if self.needs_logits else features.pool
        assert rows is not None  # Evaluation has made sure
        self.seen.update(rows, indices)

    def in_order(self) -> Float[Tensor, "n d"]:
        """All processes' rows by index, on the CPU.

        Raises:
            ValueError: an image was seen twice.
        """
        rows: Tensor = self.seen.compute()
        return rows


def against(reference: Reference | None) -> Reference:
    """The reference of a metric that needs one.

    Raises:
        ValueError: there is none.
    """
    if reference is None:
        raise ValueError("the metric holds samples against real images, and was given none")
    return reference


def check_whole(key: str, value: Any, least: int) -> None:
    """Refuse a setting `evaluation.<key>` that is not a whole number of at least `least`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"evaluation.{key}={value} must be a whole number of at least {least}")
