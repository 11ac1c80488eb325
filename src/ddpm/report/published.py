"""Measured against published values: PASS, FAIL, or why the two cannot be compared. Never imports torch."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.config.compose import compose
from ddpm.config.roles import matters_to
from ddpm.metrics import registry


def compare(config: DictConfig, metrics: Mapping[str, Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
    """An entry for each metric that the experiment (or, without one, the recipe) has a published value for.

    Its `verdict` is PASS, FAIL, or the reason why this run is not the published one.
    """
    values = expected(config)
    departures = list(_departures(config, step)) if values else []
    sections = [str(key) for key, section in config.evaluation.items() if isinstance(section, DictConfig)]
    entries = []
    for metric, value in values.items():
        if metric not in metrics or not isinstance(value, Mapping):
            continue
        own = [
            text
            for key, text in departures
            if matters_to(key, of_bound=metric in registry.bound(), own=metric, metrics=sections)
        ]
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
    choices, published = config["choices"], config["expected"] or {}
    values: Mapping[str, Any] | None = published.get(choices.get("recipe") if choices.get("experiment") else "recipe")
    return values or {}


def _departures(config: DictConfig, step: int) -> Iterator[tuple[str, str]]:
    """The keys in which the run differs from its recipe and experiment as they stand in conf/, and how."""
    chosen = [f"{group}={config.choices[group]}" for group in ("recipe", "experiment") if config.choices.get(group)]
    published, own = (flat(OmegaConf.to_container(c)) for c in (compose(chosen), config))
    for key in sorted(published.keys() | own.keys()):
        if published.get(key) != own.get(key):
            yield key, f"{key}={own.get(key)} instead of {published.get(key)}"
    if step < config.max_steps and not config.get("foreign"):  # other files do not say
        yield "max_steps", f"step {step:,} of {config.max_steps:,}"


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
