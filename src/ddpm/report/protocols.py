"""How the protocols of runs differ, and which metrics cannot be ranked for that reason."""

from collections.abc import Collection, Sequence

from ddpm.metrics import registry
from ddpm.report.run import ReportedRun
from ddpm.report.settings import under

# Parts of a protocol that belong to the compared method, by the beginning of their names: these may differ.
OF_METHOD = ("sampler", "guidance", "condition.drop", "timesteps", "evaluations_per_sample", "weights", "fingerprint")
OF_METRICS = "feature_metrics"  # settings of metrics, which matter to nothing else


def differing(runs: Sequence[ReportedRun]) -> dict[str, list[str]]:
    """The parts of the protocols that are not the same wherever something was measured, with their values."""
    protocols = [_comparable(run.protocol) for run in runs if run.finished and run.protocol]
    parts = dict.fromkeys(part for protocol in protocols for part in protocol)
    values = {part: list(dict.fromkeys(protocol.get(part, "not said") for protocol in protocols)) for part in parts}
    return {part: found for part, found in values.items() if len(found) > 1 and part != "fingerprint"}


def _comparable(protocol: dict[str, str]) -> dict[str, str]:
    """The same, but for a bound at every t, which is one measure for every T and however often x_1 was drawn."""
    full = "bound.evaluations" in protocol and protocol["bound.evaluations"] == protocol.get("timesteps")
    if not full:
        return protocol
    kept = {part: value for part, value in protocol.items() if part != "bound.draws_of_x_1"}
    return {**kept, "bound.evaluations": "every t"}


def void(part: str, metric: str) -> bool:
    """Whether values of this metric, measured with different such parts, cannot be ranked."""
    metrics = _concerned(part)
    return not of_method(part) and (metrics is None or registry.base_of(metric) in metrics)


def _concerned(part: str) -> Collection[str] | None:
    """The quantities that this part of a protocol matters to; None: all."""
    metrics = registry.metrics().values()
    if under(part, ("features", "num_samples", "quantiser")):
        return [name for metric in metrics for name in metric.quantities]
    if under(part, ("fid_reference",)):
        return [name for metric in metrics if metric.needs_reference for name in metric.quantities]
    if under(part, ("bound", "condition")):  # log p(x | c) is no log p(x); samples are images either way
        return registry.bound()
    if under(part, (OF_METRICS,)):
        stated = part.removeprefix(f"{OF_METRICS}.")
        return [name for metric in metrics if stated in metric.settings.values() for name in metric.quantities]
    return None


def of_method(part: str) -> bool:
    """Whether it belongs to what is compared rather than to how it is measured."""
    return under(part, OF_METHOD)
