"""Metrics of a set of images from one pass of the feature extractor, held against real images of one or both splits."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ddpm.metrics.features import Features
from ddpm.metrics.metric import Reference, SampleMetric

Entry = dict[str, Any]  # of results.json: a value, its error, counts, settings


class MetricsOfImages:
    """Several metrics of the same images: accumulates on every process; `compute` gives each process all numbers."""

    def __init__(
        self, metrics: Sequence[SampleMetric], references: Sequence[Reference], width: int, device: torch.device
    ) -> None:
        self.references = references
        self.metrics = [metric for metric in metrics if references or not metric.needs_reference]
        for metric in self.metrics:
            metric.begin(width, device)

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        for metric in self.metrics:
            metric.update(features, indices)

    def compute(self, n: int) -> dict[str, Entry]:
        """The entries of n images for results.json.

        Raises:
            RuntimeError: it was not n that were counted.
        """
        entries: dict[str, Entry] = {}
        for metric in self.metrics:
            if not metric.needs_reference:
                for name, numbers in metric.compute(n).items():
                    entries[name] = {**numbers, "n": n, **metric.chosen}
                continue
            for known in self.references:
                count = len(known.some_features) if metric.needs_pool else known.statistics.count
                about = {"n": n, "reference": known.split, "reference_n": count, **metric.chosen}
                for name, numbers in metric.compute(n, known).items():
                    entries[name + known.suffix] = {**numbers, **about}
        return entries
