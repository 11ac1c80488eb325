"""FID and KID of each class: samples that were told a class against the real images of it."""

import statistics
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ddpm.metrics.features import Features
from ddpm.metrics.fid import frechet_distance
from ddpm.metrics.metric import InOrderMetric, Reference, against
from ddpm.metrics.statistics import FeatureStatistics

LEAST = 20  # samples, and real images, of a class that is counted


def kernel_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """KID without subsets: the unbiased squared MMD under the kernel (x^T y / d + 1)^3; Binkowski et al. 2018."""
    x, y = x.double(), y.double()
    n, m, d = len(x), len(y), x.shape[1]
    xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


class ByClass(InOrderMetric):
    """The means over classes of the FID and of the KID of a class, for classes with 20 samples and real images or more.

    FID is biased upwards the more, the fewer images a class has: compare it at equal counts only. KID is not.
    """

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "fid_by_class": {
            "title": "FID by class",
            "digits": 2,
            "better": "lower",
            "error": "std",
            "error_is": "the deviation over classes",
        },
        "kid_by_class": {
            "title": "KID by class",
            "digits": 4,
            "better": "lower",
            "error": "std",
            "error_is": "the deviation over classes",
        },
    }
    settings: ClassVar[dict[str, str]] = {}
    needs_reference = True
    needs_labels = True
    needs_pool = True
    remedy = f"{LEAST} of each class"

    @property
    def fewest(self) -> int:
        return LEAST

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        assert features.labels is not None  # Evaluation has made sure
        labels = features.labels.to(features.pool)  # a last column, exact for any number of classes that there are
        self.seen.update(torch.cat([features.pool, labels[:, None]], 1), indices)

    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        rows, real = self.in_order(), against(reference)
        assert real.labels is not None
        pool, labels = rows[:, :-1], rows[:, -1].round().long()
        theirs, their_labels = real.some_features.cpu(), real.labels.cpu()
        fid, kid = dict[int, float](), dict[int, float]()
        for k in range(int(torch.cat([labels, their_labels]).max()) + 1):
            x, y = pool[labels == k], theirs[their_labels == k]
            if min(len(x), len(y)) >= LEAST:
                fid[k] = frechet_distance(FeatureStatistics.of(x), FeatureStatistics.of(y))
                kid[k] = kernel_distance(x, y)
        if not fid:
            return {}
        return {"fid_by_class": _over_classes(fid), "kid_by_class": _over_classes(kid)}

    def notes(self, metrics: dict[str, dict[str, Any]], real: dict[str, dict[str, Any]]) -> list[str]:
        found = metrics.get("fid_by_class")
        if found is None:
            return [f"by class: no class has {LEAST} samples and {LEAST} real images"]
        return [
            f"by class: means over {found['classes']} classes with {LEAST} samples and real images or more; "
            f"the largest FID is that of class {found['worst_class']}, {found['worst']:.2f}"
        ]


def _over_classes(found: dict[int, float]) -> dict[str, float]:
    worst = max(found, key=found.__getitem__)
    return {
        "value": statistics.fmean(found.values()),
        "std": statistics.stdev(found.values()) if len(found) > 1 else 0.0,
        "classes": len(found),
        "worst": found[worst],
        "worst_class": worst,
    }
