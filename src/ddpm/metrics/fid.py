"""FID: the distance between Gaussians that have the moments of the features of samples and of real images."""

from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from ddpm.metrics.features import Features
from ddpm.metrics.metric import Reference, SampleMetric, against
from ddpm.metrics.registry import of
from ddpm.metrics.statistics import FeatureMoments, FeatureStatistics

FEW = 2048  # fewer images than Inception has features: FID is then mostly bias


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)); Heusel et al. 2017, Section 2.

    FID, where the features are Inception's. Biased upwards for few samples: compare at equal counts only.

    The trace of the root is the sum of the roots of the eigenvalues of C_a C_b, which are those of the symmetric
    C_a^(1/2) C_b C_a^(1/2). A root of the product itself turns complex or fails where a covariance is singular, as it
    is for fewer images than features; the symmetric form is real, and more exact there than the product's eigenvalues.

    Raises:
        ValueError: the statistics are of features of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics of {len(a.mean)} and of {len(b.mean)} features have no distance")
    variances, axes = torch.linalg.eigh(a.cov)
    half = axes * variances.clamp(min=0).sqrt()
    root = torch.linalg.eigvalsh(half.T @ b.cov @ half).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * root)


class FrechetDistance(SampleMetric):
    """FID; Heusel et al. 2017. Biased upwards for few samples: compare at equal counts only."""

    quantities: ClassVar[dict[str, dict[str, Any]]] = {"fid": {"title": "FID", "digits": 3, "better": "lower"}}
    settings: ClassVar[dict[str, str]] = {}
    needs_reference = True

    @property
    def fewest(self) -> int:
        return 2  # or there is no covariance

    def accumulator(self, width: int) -> FeatureMoments:
        return FeatureMoments(width)

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        self.seen.update(features.pool)

    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        found: FeatureStatistics = self.seen.compute()
        if found.count != n:
            raise RuntimeError(f"{found.count} images were counted where {n} were due")
        return {"fid": {"value": frechet_distance(found, against(reference).statistics)}}

    def notes(self, metrics: dict[str, dict[str, Any]], real: dict[str, dict[str, Any]]) -> list[str]:
        notes = []
        for name in ("fid", "fid_train", "fid_test"):
            if not (fid := metrics.get(name)):
                continue
            few = f"; fewer than {FEW:,}, so biased upwards: compare at equal counts" if fid["n"] < FEW else ""
            notes.append(
                f"{of(name).title}: {fid['n']:,} samples against {fid['reference_n']:,} images of the "
                f"{fid['reference']} split{few}"
            )
            if beside := real.get(name):
                other = "train" if fid["reference"] == "test" else "test"
                notes.append(f"real images: {beside['n']:,} of the {other} split in the samples' place")
        return notes
