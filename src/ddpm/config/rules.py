"""Combinations that cannot work, with the reason and the way out, judged by what the chosen classes state.

No rule knows the name of an option: a copy of an option under another name is judged like the original, and the options
that a message recommends are those whose class would do.
"""

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig

from ddpm.config.facts import fact
from ddpm.config.groups import options_of
from ddpm.config.targets import target_of

BROKEN_PRECISIONS = ("bf16-true", "16-true", "transformer-engine", "transformer-engine-float16")


def refuse(config: DictConfig) -> str | None:
    """Why this combination cannot work, and what to use instead; None if it can."""
    return next(_reasons(config), None)


def _reasons(config: DictConfig) -> Iterator[str]:
    chosen = {group: f"{group}={option}" for group, option in config.choices.items()}
    learned = _states(config.variance, "learned")
    if learned and not _states(config.objective, "trains_variance"):
        yield (
            f"{chosen['objective']} gives a learned variance no gradient: use "
            f"{_fitting('objective', 'trains_variance', bool)}, or {_fitting('variance', 'learned', _not)}"
        )
    if not learned and _states(config.objective, "needs_learned_variance"):
        yield (
            f"{chosen['objective']} adds the bound to train a learned variance, and {chosen['variance']} is fixed: use "
            f"{_fitting('variance', 'learned', bool)}, or {_fitting('objective', 'needs_learned_variance', _not)}"
        )
    if "weighting" not in config.objective and not _states(config.weighting, "uniform"):
        yield (
            f"{chosen['weighting']} is a weight of the squared error, which {chosen['objective']} does not take: use "
            f"{_fitting('weighting', 'uniform', bool)}, or objective=simple"
        )
    if _states(config.timesteps, "unbiased") is False and _states(config.objective, "trains_variance"):
        yield (
            f"{chosen['timesteps']} draws t by a density of its own, and {chosen['objective']} holds the bound, which "
            f"would be another sum: use {_fitting('timesteps', 'unbiased', bool)}, or "
            f"{_fitting('objective', 'trains_variance', _not)}"
        )
    takes, has = _states(config.network, "event_ndim"), _states(config.data, "event_ndim")
    if has == 0 and isinstance(shape := config.data.get("shape"), ListConfig):
        has = len(shape)
    if takes is not None and has is not None and takes != has:
        yield (
            f"{chosen['network']} takes {_examples(takes)}, and {chosen['data']} has {_examples(has)}: use "
            f"{_fitting('network', 'event_ndim', lambda n: n == has)}"
        )
    needs, told = _states(config.condition, "needs"), _states(config.network, "takes")
    if needs == "labels" and _states(config.data, "classes") == 0:
        yield (
            f"{chosen['condition']} tells the network the class of each example, and {chosen['data']} has no classes: "
            f"use {_fitting('condition', 'needs', _not)}"
        )
    if needs and told is not None and needs not in told:
        yield (
            f"{chosen['network']} cannot be told {needs}, as {chosen['condition']} does: use "
            f"{_fitting('condition', 'needs', _not)}"
        )
    if _states(config.guidance, "needs_dropped") and not config.condition.get("drop"):
        yield (
            f"{chosen['guidance']} leads a network away from itself without its condition, for which it must have been "
            f"trained with condition.drop above 0, and {chosen['condition']} was not: use "
            f"{_fitting('guidance', 'needs_dropped', _not)}"
        )
    if config.trainer.precision in BROKEN_PRECISIONS:
        yield (
            "a 16-bit network rounds its output by up to half a gray level (1/255) and its weights' updates away: "
            "use trainer.precision=bf16-mixed"
        )


def _states(section: DictConfig, name: str) -> Any:
    return fact(section["_target_"], name) if "_target_" in section else None


def _fitting(group: str, name: str, fits: Callable[[Any], bool]) -> str:
    """The options of the group whose class states a fact that fits: "objective=hybrid or objective=vlb"."""
    options = [option for option in options_of(group) if fits(fact(target_of(group, option), name))]
    return " or ".join(f"{group}={option}" for option in options)


def _not(value: Any) -> bool:
    return not value


def _examples(event_ndim: int) -> str:
    return {1: "vectors, as points in the plane", 3: "images of channels, height and width"}.get(
        event_ndim, f"examples of {event_ndim} dimensions"
    )
