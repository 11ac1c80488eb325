"""Measured against published values: PASS, FAIL, or why the two cannot be compared. Never imports torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.config.compose import compose

# Settings that cannot change what a number means, by the beginning of their names.
HARMLESS = (
    "choices", "expected", "foreign", "name", "seed", "out", "ckpt", "keep", "resume", "evaluate_after", "every",
    "logger", "trainer", "optimized_metric", "data.path", "data.root", "data.num_workers", "data.array_gib",
    "features.weights", "evaluation.metrics", "evaluation.chunk", "evaluation.seed", "evaluation.kid",
    "evaluation.precision_recall",
)  # fmt: skip
OF_SAMPLES = ("sampler", "features", "evaluation.num_samples", "evaluation.fid_split", "evaluation.inception_score")
OF_BOUND = ("data.split", "evaluation.bits_per_dim")


def compare(config: DictConfig, metrics: Mapping[str, Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
    """An entry for each metric that the experiment (or, without one, the recipe) has a published value for.

    Its `verdict` is PASS, FAIL, or the reason why this run is not the published one.
    """
    values = expected(config)
    departures = list(_departures(config, step)) if values else []
    entries = []
    for metric, value in values.items():
        if metric not in metrics or not isinstance(value, Mapping):
            continue
        elsewhere = OF_SAMPLES if metric.startswith("bits") else OF_BOUND
        own = [departure for departure in departures if not departure.startswith(elsewhere)]
        measured = metrics[metric]["value"]
        verdict = "PASS" if abs(measured - value["value"]) <= value["tolerance"] else "FAIL"
        if own:
            more = f" and {len(own) - 3} more" if len(own) > 3 else ""
            verdict = f"not the published protocol: {'; '.join(own[:3])}{more}"
        elif tool := value.get("tool"):
            verdict = f"not the published protocol: it was measured with {tool}"
        about = {"published": value["value"], "tolerance": value["tolerance"], "source": values["source"]}
        entries.append({"metric": metric, "measured": measured, **about, "verdict": verdict})
    return entries


def expected(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the experiment on this recipe (or, without one, the recipe) was published with: `source`, and by metric."""
    choices = config["choices"]
    values: Mapping[str, Any] | None = config["expected"].get(
        choices.get("recipe") if choices.get("experiment") else "recipe"
    )
    return values or {}


def _departures(config: DictConfig, step: int) -> Iterator[str]:
    """Where the run differs from its recipe and experiment as they stand in conf/."""
    chosen = [f"{group}={config.choices[group]}" for group in ("recipe", "experiment") if config.choices.get(group)]
    published, own = (flat(OmegaConf.to_container(c)) for c in (compose(chosen), config))
    for key in sorted(published.keys() | own.keys()):
        if not key.startswith(HARMLESS) and published.get(key) != own.get(key):
            yield f"{key}={own.get(key)} instead of {published.get(key)}"
    if step < config.max_steps and not config.get("foreign"):  # other files do not say
        yield f"step {step:,} of {config.max_steps:,}"


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
