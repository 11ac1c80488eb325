"""Improved precision and recall: how many samples look real, and how many real images the samples reach."""

from typing import Any, ClassVar, Final

from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from ddpm.metrics.metric import InOrderMetric, Reference, against, check_whole


class PrecisionRecall(InOrderMetric):
    """Improved precision and recall; Kynkaanniemi et al. 2019, Eq. (2).

    The share of samples within reach of the real images, and of real images within reach of the samples; a reach is the
    distance to the k-th nearest neighbour of one's own kind. Depends on the counts: compare at equal ones only.
    """

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "precision": {"title": "precision", "digits": 3, "better": "higher"},
        "recall": {"title": "recall", "digits": 3, "better": "higher"},
    }
    settings: ClassVar[dict[str, str]] = {"neighborhood": "neighborhood"}
    needs_reference = True
    needs_pool = True

    def __init__(self, neighborhood: int = 3) -> None:
        check_whole("precision_recall.neighborhood", neighborhood, 1)
        self.neighborhood: Final = neighborhood

    @property
    def fewest(self) -> int:
        return self.neighborhood + 1

    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        pool, real = self.in_order(), against(reference).some_features.cpu()
        for images, kind in ((real, "real images"), (pool, "samples")):
            if len(images) <= self.neighborhood:
                raise ValueError(f"a neighbour number {self.neighborhood} does not exist among {len(images)} {kind}")
        # In parts, or 50,000 samples would need 30 GB for their distances.
        shares = prc_features_to_metric(
            pool,
            real,
            prc_neighborhood=self.neighborhood,
            prc_batch_size=2500,
            save_cpu_ram=True,
            verbose=False,
        )
        return {"precision": {"value": shares[KEY_METRIC_PRECISION]}, "recall": {"value": shares[KEY_METRIC_RECALL]}}
