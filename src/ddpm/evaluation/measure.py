"""Metrics of a set of images from one pass of the feature extractor, held against real images of one or both splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric

from ddpm.metrics.features import Features
from ddpm.metrics.reference import Reference
from ddpm.metrics.sample_metric import Numbers, SampleMetric


@dataclass(frozen=True)
class Measurement:
    """One metric of one set of images against one reference, or none."""

    metric: SampleMetric
    reference: Reference | None
    accumulator: Metric


class FeatureMetrics:
    """Accumulates features on every process; `compute` reduces, and every process gets the numbers."""

    def __init__(
        self,
        wanted: Mapping[str, SampleMetric],
        references: Sequence[Reference],
        width: int,
        device: torch.device,
    ) -> None:
        self.measurements = [
            Measurement(metric, reference, metric.accumulator(width, reference).to(device))
            for metric in wanted.values()
            for reference in (references if metric.needs_reference else (None,))
        ]

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        for each in self.measurements:
            each.metric.feed(each.accumulator, features, indices)

    def compute(self, n: int) -> dict[str, Numbers]:
        """The metrics of n images, by the names of their quantities.

        Raises:
            RuntimeError: it was not n that were counted.
        """
        numbers: dict[str, Numbers] = {}
        for each in self.measurements:
            reference = each.reference
            for name, parts in each.metric.numbers(each.accumulator, reference).items():
                if (counted := parts.get("n", n)) != n:
                    raise RuntimeError(f"{counted} images were counted where {n} were due")
                against = {"reference": reference.split} if reference else {}
                numbers[name + (reference.suffix if reference else "")] = {**parts, "n": n, **against}
        return numbers
