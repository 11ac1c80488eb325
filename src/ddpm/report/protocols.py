"""How the protocols of runs differ, and which metrics cannot be ranked for that reason."""

from collections.abc import Sequence

from ddpm.metrics import registry
from ddpm.report.collect import Run
from ddpm.report.settings import under

OF_METHOD = ("sampler", "timesteps", "evaluations_per_sample", "weights", "fingerprint")  # what is compared may differ
OF_SAMPLES = ("features", "num_samples", "quantiser")  # parts that matter to every metric of samples


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
    metrics = _matters_to(part)
    return not of_method(part) and (metrics is None or metric.startswith(metrics))


def of_method(part: str) -> bool:
    """Whether it belongs to what is compared rather than to how it is measured."""
    return under(part, OF_METHOD)


def _matters_to(part: str) -> tuple[str, ...] | None:
    """The quantities to which a part of the protocol matters; None for all."""
    if under(part, ["feature_metrics"]):
        own = part.rpartition(".")[2]
        return registry.sample_quantities(lambda metric: own in (registry.facts_of(metric, "parts") or {}))
    if under(part, ["fid_reference"]):
        return registry.sample_quantities(lambda metric: registry.facts_of(metric, "needs_reference"))
    if under(part, ["bound"]):
        return registry.BOUNDS
    return registry.sample_quantities() if under(part, OF_SAMPLES) else None
