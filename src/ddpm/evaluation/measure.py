"""Metrics of a set of images from one pass of the feature extractor, held against real images of one or both splits."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ddpm.evaluation.reference import Reference
from ddpm.metrics.features import Features
from ddpm.metrics.statistics import FeatureMoments, InceptionScore, KernelDistance, PrecisionRecall, frechet_distance

Metric = dict[str, Any]  # value, its spread, counts: an entry of results.json

OF_FEATURES = ("inception_score", "fid", "kid", "precision_recall")


@dataclass(frozen=True)
class FeatureSettings:
    """Arguments of the metrics."""

    inception_score_splits: int
    kid_subsets: int
    kid_subset_size: int
    neighborhood: int

    def fewest(self, metric: str) -> int:
        """Images without which a metric is not defined."""
        return {
            "inception_score": self.inception_score_splits,
            "fid": 2,
            "kid": self.kid_subset_size,
            "precision_recall": self.neighborhood + 1,
        }[metric]


class FeatureMetrics:
    """Accumulates features on every process; `compute` reduces, and every process gets the numbers."""

    def __init__(
        self,
        wanted: Collection[str],
        references: Sequence[Reference],
        settings: FeatureSettings,
        width: int,
        device: torch.device,
    ) -> None:
        self.settings, self.references = settings, references
        self.score = InceptionScore(settings.inception_score_splits).to(device) if "inception_score" in wanted else None
        self.moments = FeatureMoments(width).to(device) if "fid" in wanted and references else None
        self.kernels: list[KernelDistance] = []
        self.shares: list[PrecisionRecall] = []
        for known in references:
            if "kid" in wanted:
                kernel = KernelDistance(known.some_features, settings.kid_subsets, settings.kid_subset_size)
                self.kernels.append(kernel.to(device))
            if "precision_recall" in wanted:
                self.shares.append(PrecisionRecall(known.some_features, settings.neighborhood).to(device))

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        if self.score is not None:
            assert features.logits is not None  # Evaluation has made sure
            self.score.update(features.logits, indices)
        if self.moments is not None:
            self.moments.update(features.pool)
        for ordered in (*self.kernels, *self.shares):
            ordered.update(features.pool, indices)

    def compute(self, n: int) -> dict[str, Metric]:
        """The metrics of n images.

        Raises:
            RuntimeError: it was not n that were counted.
        """
        metrics: dict[str, Metric] = {}
        if self.score is not None:
            value, std = self.score.compute()
            metrics["inception_score"] = {"value": value, "std": std, "n": n, "splits": self.score.splits}
        if self.moments is not None:
            found = self.moments.compute()
            if found.count != n:
                raise RuntimeError(f"{found.count} images were counted where {n} were due")
            for known in self.references:
                value = frechet_distance(found, known.statistics)
                against = {"reference": known.split, "reference_n": known.statistics.count}
                metrics[f"fid{known.suffix}"] = {"value": value, "n": n, **against}
        for known, kernel in zip(self.references, self.kernels, strict=False):
            value, std = kernel.compute()
            about = {"reference_n": len(kernel.reference), "subsets": kernel.subsets, "subset_size": kernel.subset_size}
            metrics[f"kid{known.suffix}"] = {"value": value, "std": std, "n": n, "reference": known.split, **about}
        for known, share in zip(self.references, self.shares, strict=False):
            about = {"reference_n": len(share.reference), "neighborhood": share.neighborhood}
            for name, value in share.compute()._asdict().items():
                metrics[name + known.suffix] = {"value": value, "n": n, "reference": known.split, **about}
        return metrics
