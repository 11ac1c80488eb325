"""The Inception Score: how sure a classifier is of each sample, and how various its answers are."""

from typing import Any, ClassVar, Final

from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from ddpm.metrics.metric import SEED, InOrderMetric, Reference, check_whole


class InceptionScore(InOrderMetric):
    """exp E_x KL(p(y|x) || p(y)), mean and deviation over splits; Salimans et al. 2016, Section 4.

    Computed from logits without bias. The samples are dealt to the splits by torch-fidelity's fixed permutation of
    their indices, so the value depends neither on the number of processes nor on the global random state.
    """

    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "inception_score": {
            "title": "IS",
            "digits": 3,
            "better": "higher",
            "error": "std",
            "error_is": "the deviation over splits",
        }
    }
    settings: ClassVar[dict[str, str]] = {"splits": "inception_score_splits"}
    needs_reference = False
    needs_logits = True

    def __init__(self, splits: int = 10) -> None:
        check_whole("inception_score.splits", splits, 1)
        self.splits: Final = splits

    @property
    def fewest(self) -> int:
        return self.splits

    def compute(self, n: int, reference: Reference | None = None) -> dict[str, dict[str, float]]:
        logits = self.in_order()
        if len(logits) < self.splits:
            raise ValueError(f"the Inception Score over {self.splits} splits needs as many images, not {len(logits)}")
        score = isc_features_to_metric(logits, self.splits, shuffle=True, rng_seed=SEED)
        return {"inception_score": {"value": score[KEY_METRIC_ISC_MEAN], "std": score[KEY_METRIC_ISC_STD]}}

    def notes(self, metrics: dict[str, dict[str, Any]], real: dict[str, dict[str, Any]]) -> list[str]:
        if not (score := metrics.get("inception_score")):
            return []
        counts = {score["n"], real.get("inception_score", score)["n"]}
        images = " and ".join(f"{count:,}" for count in sorted(counts))
        return [f"IS: mean ± deviation over {score['splits']} splits of {images} images; real ones of the train split"]
