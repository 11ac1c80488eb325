"""What was measured differently, and which metrics that keeps from being ranked."""

from collections.abc import Sequence

from ddpm.report.collect import Run
from ddpm.report.settings import under

# Parts of a protocol, by the beginning of their names. The compared method's may differ; each of the others matters to
# these metrics, and what is not listed to all.
OF_METHOD = ("sampler", "timesteps", "evaluations_per_sample", "weights", "fingerprint")
SAMPLES = ("inception_score", "fid", "kid", "precision", "recall")
MATTERS = {
    "features": SAMPLES,
    "feature_metrics.inception_score_splits": ("inception_score",),
    "feature_metrics.kid_subsets": ("kid",),
    "feature_metrics.kid_subset_size": ("kid",),
    "feature_metrics.neighborhood": ("precision", "recall"),
    "num_samples": SAMPLES,
    "fid_reference": ("fid", "kid", "precision", "recall"),
    "quantiser": SAMPLES,
    "bound": ("bits_per_dim", "bound_nats"),
}


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The parts of the protocols that are not the same wherever something was measured, with their values."""
    protocols = [_comparable(run.protocol) for run in runs if run.finished and run.protocol]
    parts = dict.fromkeys(part for protocol in protocols for part in protocol)
    values = {part: list(dict.fromkeys(protocol.get(part, "not said") for protocol in protocols)) for part in parts}
    return {part: found for part, found in values.items() if len(found) > 1 and part != "fingerprint"}


def _comparable(protocol: dict[str, str]) -> dict[str, str]:
    """The same, but for a bound at every t, which is one measure for every T."""
    full = "bound.evaluations" in protocol and protocol["bound.evaluations"] == protocol.get("timesteps")
    return {**protocol, "bound.evaluations": "every t"} if full else protocol


def void(part: str, metric: str) -> bool:
    """Whether values of this metric, measured with different such parts, cannot be ranked."""
    metrics = next((metrics for name, metrics in MATTERS.items() if under(part, [name])), None)
    return not of_method(part) and (metrics is None or metric.startswith(metrics))


def of_method(part: str) -> bool:
    """Whether it belongs to what is compared rather than to how it is measured."""
    return under(part, OF_METHOD)
