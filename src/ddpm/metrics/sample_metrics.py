"""IS, FID, KID, precision and recall as metrics of samples; their formulas are in statistics.py."""

from typing import Any, ClassVar, cast, final

from jaxtyping import Int64
from torch import Tensor
from torchmetrics import Metric

from ddpm.metrics.features import Features
from ddpm.metrics.reference import Reference
from ddpm.metrics.sample_metric import Numbers, SampleMetric, at_least
from ddpm.metrics.statistics import (
    FeatureMoments,
    FeatureStatistics,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
    frechet_distance,
)


@final
class InceptionScoreOfSamples(SampleMetric):
    """The Inception Score, mean and deviation over `splits` splits; Salimans et al. 2016."""

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "inception_score": {"title": "IS", "digits": 3, "better": "higher", "error": "std"}
    }
    parts: ClassVar[dict[str, str]] = {"inception_score_splits": "splits"}
    uses_logits = True
    needs_reference = False

    def __init__(self, splits: int = 10) -> None:
        self.splits = at_least("evaluation.inception_score.splits", splits, 1)

    @property
    def fewest(self) -> int:
        return self.splits

    def accumulator(self, width: int, reference: Reference | None) -> Metric:
        return InceptionScore(self.splits)

    def numbers(self, accumulator: Metric, reference: Reference | None) -> dict[str, Numbers]:
        value, std = accumulator.compute()
        return {"inception_score": {"value": value, "std": std, "splits": self.splits}}


@final
class Fid(SampleMetric):
    """The Frechet distance between the Gaussians of two sets of features; Heusel et al. 2017."""

    quantities: ClassVar[dict[str, dict[str, Any]]] = {"fid": {"title": "FID", "digits": 3, "better": "lower"}}

    @property
    def fewest(self) -> int:
        return 2

    def accumulator(self, width: int, reference: Reference | None) -> Metric:
        return FeatureMoments(width)

    def feed(self, accumulator: Metric, features: Features, indices: Int64[Tensor, " b"]) -> None:
        accumulator.update(features.pool)

    def numbers(self, accumulator: Metric, reference: Reference | None) -> dict[str, Numbers]:
        assert reference is not None
        found = cast(FeatureStatistics, accumulator.compute())
        value = frechet_distance(found, reference.statistics)
        return {"fid": {"value": value, "n": found.count, "reference_n": reference.statistics.count}}


@final
class Kid(SampleMetric):
    """The kernel distance, mean and deviation over random subsets of both sides; Binkowski et al. 2018."""

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "kid": {"title": "KID", "digits": 5, "better": "lower", "error": "std"}
    }
    parts: ClassVar[dict[str, str]] = {"kid_subsets": "subsets", "kid_subset_size": "subset_size"}
    needs_pool = True
    advice = "; or use a smaller evaluation.kid.subset_size"

    def __init__(self, subsets: int = 100, subset_size: int = 1000) -> None:
        self.subsets = at_least("evaluation.kid.subsets", subsets, 1)
        self.subset_size = at_least("evaluation.kid.subset_size", subset_size, 2)

    @property
    def fewest(self) -> int:
        return self.subset_size

    def accumulator(self, width: int, reference: Reference | None) -> Metric:
        assert reference is not None
        return KernelDistance(reference.some_features, self.subsets, self.subset_size)

    def numbers(self, accumulator: Metric, reference: Reference | None) -> dict[str, Numbers]:
        assert reference is not None
        value, std = accumulator.compute()
        about: Numbers = {"subsets": self.subsets, "subset_size": self.subset_size}
        return {"kid": {"value": value, "std": std, "reference_n": len(reference.some_features), **about}}


@final
class PrecisionAndRecallOfSamples(SampleMetric):
    """Improved precision and recall; Kynkaanniemi et al. 2019."""

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "precision": {"title": "precision", "digits": 3, "better": "higher"},
        "recall": {"title": "recall", "digits": 3, "better": "higher"},
    }
    parts: ClassVar[dict[str, str]] = {"neighborhood": "neighborhood"}
    needs_pool = True

    def __init__(self, neighborhood: int = 3) -> None:
        self.neighborhood = at_least("evaluation.precision_recall.neighborhood", neighborhood, 1)

    @property
    def fewest(self) -> int:
        return self.neighborhood + 1

    def accumulator(self, width: int, reference: Reference | None) -> Metric:
        assert reference is not None
        return PrecisionRecall(reference.some_features, self.neighborhood)

    def numbers(self, accumulator: Metric, reference: Reference | None) -> dict[str, Numbers]:
        assert reference is not None
        about: dict[str, Any] = {"reference_n": len(reference.some_features), "neighborhood": self.neighborhood}
        return {name: {"value": value, **about} for name, value in accumulator.compute()._asdict().items()}
