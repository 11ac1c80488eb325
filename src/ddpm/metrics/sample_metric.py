"""What a metric of samples is. To add one: a class that keeps this contract, and a file in conf/metric/ that names it.

    # conf/metric/mine.yaml
    # @package evaluation.mine
    _target_: my_package.Mine
    strength: 3

`evaluation.metrics=[fid,mine]` then measures it, results.json, tables, reports and loggers show it, and
`optimized_metric=mine` searches by it.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from ddpm.metrics.features import Features
from ddpm.metrics.reference import Reference
from ddpm.metrics.statistics import InOrder

Numbers = dict[str, Any]  # value, its spread, counts: an entry of results.json


class SampleMetric(ABC):
    """A metric of samples by the features that an extractor sees in them. Its settings are the constructor's arguments.

    Class attributes must be literals: tables and reports read them from the source, without importing torch.

    Attributes:
        quantities: the numbers that it makes, by their names in results.json: `title`; `digits` after the point;
            `better`, "higher" or "lower"; and, where a number has one, `error`, the name of its spread.
        parts: its part of the protocol: the name there of each setting (an attribute of the object).
        uses_logits: it looks at the extractor's logits instead of its pooled features.
        needs_reference: samples are held against real images, once for each split that evaluation.fid_split names.
        needs_pool: it needs the features of real images themselves, not only their mean and covariance.
        advice: what else can be done where there are too few images.
    """

    quantities: ClassVar[dict[str, dict[str, Any]]]
    parts: ClassVar[dict[str, str]] = {}
    uses_logits: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    needs_pool: ClassVar[bool] = False
    advice: ClassVar[str] = ""

    @property
    @abstractmethod
    def fewest(self) -> int:
        """Images without which it is not defined, of samples and of real ones."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What its numbers depend on."""
        return {name: getattr(self, attribute) for name, attribute in self.parts.items()}

    def accumulator(self, width: int, reference: Reference | None) -> Metric:
        """What collects features on every process: by default all of them, in the order of their samples.

        Args:
            width: of the pooled features.
        """
        return InOrder()

    def feed(self, accumulator: Metric, features: Features, indices: Int64[Tensor, " b"]) -> None:
        """Hand over the features of the samples with these indices."""
        accumulator.update(features.logits if self.uses_logits else features.pool, indices)

    def numbers(self, accumulator: Metric, reference: Reference | None) -> dict[str, Numbers]:
        """What was measured, by the names of `quantities`; every process gets it."""
        return self.compute(accumulator.compute(), reference)

    def compute(self, rows: Float[Tensor, "n d"], reference: Reference | None) -> dict[str, Numbers]:
        """The same, from the features (or logits) of all samples, in order; what most metrics need to define.

        Raises:
            ValueError: it is not defined for these.
        """
        raise NotImplementedError


def at_least(setting: str, value: int, least: int) -> int:
    """The value, if it is a whole number of at least so much.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{setting}={value} must be a whole number of at least {least}")
    return value
