"""`init=`: a run that begins with a checkpoint's weights has that checkpoint's model; all else is the run's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import NO_SAMPLES, compose_converted, is_converted
from ddpm.config.grammar import parse, shown
from ddpm.config.groups import group_names
from ddpm.config.roles import MODEL, Role, role
from ddpm.config.saved import section_of, without_interpolation

# Settings of a network that may differ from the checkpoint's: dropout has no weights, and for images of another size
# the same levels have other resolutions; whether attention is where the weights have it, their names tell.
OPEN = ("network.dropout", "network.attention_resolutions")


def compose_run(overrides: Sequence[str], config_of: Callable[[str], dict[str, Any]]) -> DictConfig:
    """The configuration of a new run.

    With `init=`, the model (network, schedule, prediction, variance) is the checkpoint's, whatever the recipe says.
    What the command line says of it must agree; `OPEN` is the command line's where it says something.

    Args:
        config_of: reads the configuration of the checkpoint that `init=` names, as `checkpoint.load` has it.

    Raises:
        RequestError: the command line says another model, or as `compose`.
    """
    said = parse(overrides)
    init = next((override.value() for override in reversed(said) if override.key_or_group == "init"), None)
    if not init:
        return compose(overrides)
    given = dict(zip((override.key_or_group for override in said), overrides, strict=True))
    if given.get("experiment", "experiment=null") != "experiment=null":
        raise RequestError(
            f"{given['experiment']} is a row of a table, whose runs are trained from nothing: with init= say what you "
            "want of its training itself, as objective=hybrid"
        )
    model = _model(config_of(str(init)), given)

    def revise(config: DictConfig) -> None:
        for key in given:
            _check_agreement(key, config, model, given[key], str(init))
        own = [key for key in given if key.partition(".")[0] in model["sections"] and not _must_agree(key)]
        kept = {key: OmegaConf.select(config, key) for key in own}
        for section in model["sections"]:
            config[section] = model["sections"][section]
            config.choices[section] = model["choices"].get(section)
        for key, value in kept.items():
            OmegaConf.update(config, key, value)

    return compose(overrides, revise=revise)


def _model(base: dict[str, Any], given: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The sections of a checkpoint's model, and of which options they were made."""
    if is_converted(base):
        said = [text for key, text in given.items() if _must_agree(key) or key == "recipe"]
        base, _ = compose_converted(base, [*said, *NO_SAMPLES])
    sections = {key: without_interpolation(section_of(base, key)) for key in MODEL if key in base}
    return {"sections": sections, "choices": without_interpolation(section_of(base, "choices"))}


def _check_agreement(key: str, config: DictConfig, model: Mapping[str, Any], said: str, init: str) -> None:
    """Refuse what the command line says of the model if the checkpoint's is another."""
    if not _must_agree(key):
        return
    if key in group_names():
        own, theirs = config.choices.get(key), model["choices"].get(key)
    else:
        own, theirs = OmegaConf.select(config, key), OmegaConf.select(OmegaConf.create(model["sections"]), key)
    if own != theirs:
        raise RequestError(
            f"{said.lstrip('+')}: the model of init={init} has {key}={shown(theirs)}, and its weights are of no use "
            f"to another; leave {key}= away"
        )


def _must_agree(key: str) -> bool:
    return role(key) == Role.MODEL and key not in OPEN
