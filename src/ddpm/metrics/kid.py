"""KID: the kernel distance between features of samples and of real images."""

from typing import Any, ClassVar, Final

from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from ddpm.metrics.metric import SEED, InOrderMetric, Reference, against, check_whole


class KernelDistance(InOrderMetric):
    """KID: the unbiased squared MMD under the kernel (x^T y / d + 1)^3; Binkowski et al. 2018, Section 4.

    Mean and deviation over random subsets of both sides, which do not depend on the global random state. Unbiased, so
    slightly negative values are right for equal distributions.
    """

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "kid": {
            "title": "KID",
            "digits": 5,
            "better": "lower",
            "error": "std",
            "error_is": "the deviation over subsets",
        }
    }
    settings: ClassVar[dict[str, str]] = {"subsets": "kid_subsets", "subset_size": "kid_subset_size"}
    needs_reference = True
    needs_pool = True
    remedy = "use a smaller evaluation.kid.subset_size"

    def __init__(self, subsets: int = 100, subset_size: int = 1000) -> None:
        check_whole("kid.subsets", subsets, 1)
        check_whole("kid.subset_size", subset_size, 2)
        self.subsets: Final = subsets
        self.subset_size: Final = subset_size

    @property
    def fewest(self) -> int:
        return self.subset_size

    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        pool, real = self.in_order(), against(reference).some_features.cpu()
        if len(real) < self.subset_size:
            raise ValueError(
                f"KID's subsets must have 2 to {len(real)} images (the reference's), not {self.subset_size}"
            )
        if len(pool) < self.subset_size:
            raise ValueError(f"KID over subsets of {self.subset_size} needs as many images, not {len(pool)}")
        distance = kid_features_to_metric(
            pool,
            real,
            kid_subsets=self.subsets,
            kid_subset_size=self.subset_size,
            rng_seed=SEED,
            verbose=False,
        )
        return {"kid": {"value": distance[KEY_METRIC_KID_MEAN], "std": distance[KEY_METRIC_KID_STD]}}
