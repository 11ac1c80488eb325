"""The configuration of an evaluation: a checkpoint's own, or that of a converted file, under a user's overrides."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.config.compose import compose, require_option
from ddpm.config.errors import RefusedError, RequestError
from ddpm.config.grammar import dotted, nearest, parse, split_keys
from ddpm.config.groups import ALL_LOADED, CONF, content, content_of, group_names, options_of
from ddpm.config.roles import describes_the_model, evaluation_keys, open_to_evaluation
from ddpm.config.saved import compose_saved, section_of
from ddpm.messages import say

DEBUG, EMA = "debug", "ema"


def compose_evaluation(base: dict[str, Any], overrides: Sequence[str]) -> DictConfig:
    """A checkpoint's configuration under overrides that leave the model what it is.

    A chosen group replaces the checkpoint's; `debug=smoke` takes only what that file says of the evaluation, and
    `ema=NUMBER` an average of the weights of this length (`ema.length`). Overrides also complete what another
    codebase's file says of its model.

    Raises:
        RequestError: an override that would change the model, or one that `compose` would refuse.
    """
    if is_converted(base):
        base, overrides = compose_converted(base, overrides)
    asked = dict.fromkeys(override.key_or_group for override in parse(overrides))
    for key in asked:
        if key != DEBUG and not open_to_evaluation(key):
            known = {*dotted(base), *group_names()}
            if not any(_within(each, key) for each in known):
                raise RequestError(f"there is no setting {key!r}{nearest(key, sorted(known))}")
            if key in ALL_LOADED:
                raise RequestError(
                    f"{key}= is not needed: all are loaded; evaluation.metrics=[NAME] measures, figures=[NAME] draws"
                )
            raise RequestError(
                f"{key} is the checkpoint's and cannot change after training; "
                f"an evaluation takes {', '.join([*evaluation_keys(), DEBUG])}"
            )
    chosen, overrides = split_keys(overrides, (DEBUG, EMA))
    if DEBUG in chosen:
        require_option(DEBUG, chosen[DEBUG])
        smaller = content_of(DEBUG, chosen[DEBUG])
        merged = OmegaConf.merge(section_of(base, "evaluation"), smaller.get("evaluation") or {})
        base = {**base, "evaluation": OmegaConf.to_container(merged)}
    own = content(CONF / "evaluate.yaml")
    own["figure"] |= {name: content_of("figure", name) for name in options_of("figure")}
    base = {**base, "ckpt": None, **{key: own[key] for key in ("keep", "figures", "figure")}}
    if EMA in chosen:
        base = _with_average(base, chosen[EMA])
    return compose_saved(base, overrides)


def _with_average(base: dict[str, Any], said: str) -> dict[str, Any]:
    """The configuration with the length of the average that `ema=` asks for: a number, or the exponential average.

    Raises:
        RequestError: it is neither, or the run has kept nothing that it could be made of.
    """
    section = section_of(base, EMA)
    exponential = [option for option in options_of(EMA) if not content_of(EMA, option)["lengths"]]
    choices = {**section_of(base, "choices"), EMA: said}
    if said in exponential:
        return {**base, "choices": choices, EMA: {**section, "length": None}}
    try:
        length = float(said)
    except ValueError:
        raise RequestError(
            f"ema={said} must be a number, the length (sigma_rel) of a power-function average of the weights, or "
            f"{' or '.join(exponential)}"
        ) from None
    if not section.get("lengths"):
        raise RequestError(
            f"ema={said}: the run has kept its exponential average alone; train with ema=posthoc for any other"
        )
    return {**base, "choices": choices, EMA: {**section, "length": length}}


# For who wants of another codebase's file its model alone: a sampler that goes with any T.
NO_SAMPLES = ("sampler=ancestral", "sampler.steps=null")


def is_converted(base: Mapping[str, Any]) -> bool:
    """Whether it is no configuration, but says what another codebase's file holds (`foreign`, `stated`, `assumed`)."""
    return "stated" in base


def compose_converted(base: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The configuration of another codebase's model, and the overrides that are for its evaluation.

    It is the recipe's, under what the file states and, where it is silent, what it is assumed or the user says to be.

    Raises:
        RequestError: an override of what the file states, or no recipe.
    """
    layout, stated, assumed = base["foreign"], base["stated"], base["assumed"]
    facts = {parsed.key_or_group: override.lstrip("+") for override, parsed in zip(stated, parse(stated), strict=True)}
    given, rest = [], []
    for override, parsed in zip(overrides, parse(overrides), strict=True):
        key = parsed.key_or_group
        if not describes_the_model(key):
            rest.append(override)
            continue
        if facts.get(key) == override.lstrip("+"):
            continue
        if against := [fact for fact in facts if _within(fact, key) or _within(key, fact)]:
            nearest_fact = key if key in facts else max(against, key=len)
            raise RequestError(f"{key} cannot change: the file ({layout}) states {facts[nearest_fact]}")
        given.append(override)
    open_to = {override.key_or_group for override in parse(given)}
    said = [override for override in assumed if parse([override])[0].key_or_group not in open_to] + stated + given
    if "recipe" not in {override.key_or_group for override in parse(said)}:
        raise RequestError(
            f"the file ({layout}) does not say whose images it makes: add recipe=NAME, one of "
            f"{', '.join(options_of('recipe'))}"
        )
    whole = [*said, *(override for override in rest if override.partition("=")[0] not in (DEBUG, EMA))]
    try:
        config = compose(whole, "evaluate")
    except RefusedError:  # a learned variance does not go with the recipe's objective, which only training needs
        config = compose([*whole, "objective=vlb"], "evaluate")
    say(f"read as {layout}: {' '.join(override.lstrip('+') for override in said)}")
    composed: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    return {**composed, "foreign": layout}, rest


def _within(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.")
