"""Agreement: how often a classifier reads in a sample the class that it was to be of."""

import math
from typing import Any, ClassVar

from jaxtyping import Int64
from torch import Tensor

from ddpm.metrics.features import Features
from ddpm.metrics.metric import InOrderMetric, Reference


class Agreement(InOrderMetric):
    """The share of images whose label is the class of the largest logit; of real images, the classifier's accuracy."""

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "agreement": {
            "title": "agreement",
            "digits": 4,
            "better": "higher",
            "error": "stderr",
            "error_is": "the standard error over images",
        }
    }
    settings: ClassVar[dict[str, str]] = {}
    needs_reference = False
    needs_logits = True
    needs_labels = True

    @property
    def fewest(self) -> int:
        return 1

    def update(self, features: Features, indices: Int64[Tensor, " b"]) -> None:
        assert features.logits is not None  # Evaluation has made sure
        assert features.labels is not None
        agrees = features.logits.argmax(1) == features.labels.to(features.logits.device)
        self.seen.update(agrees.to(features.logits.dtype)[:, None], indices)

    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        share = float(self.in_order().mean())
        return {"agreement": {"value": share, "stderr": math.sqrt(share * (1 - share) / n)}}

    def notes(self, metrics: dict[str, dict[str, Any]], real: dict[str, dict[str, Any]]) -> list[str]:
        if not (found := metrics.get("agreement")):
            return []
        beside = f"; of {real['agreement']['n']:,} real images of the train split" if "agreement" in real else ""
        return [f"agreement: the share of {found['n']:,} samples that the classifier reads as their label{beside}"]
