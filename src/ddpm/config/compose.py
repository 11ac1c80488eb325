"""From the words of a command line to a checked configuration, and one readable line for what is wrong with them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.config.checks import AT_LEAST, wrong_value
from ddpm.config.errors import RefusedError, RequestError, root_message
from ddpm.config.grammar import PATH_KEYS, dotted, nearest, parse
from ddpm.config.groups import ALL_LOADED, SEVERAL, content_of, group_names, hydra_context, options_of
from ddpm.config.recipes import drop_strange_settings, keys_of
from ddpm.config.roles import PRESETS
from ddpm.config.rules import refuse
from ddpm.config.targets import check_targets

OPEN_SECTIONS = ("choices", "logger", "callbacks")  # which hold what other packages read
SAVED = "saved"  # the name under which Hydra finds a saved configuration


def compose(
    overrides: Sequence[str], config_name: str = "train", revise: Callable[[DictConfig], None] | None = None
) -> DictConfig:
    """The job's configuration, resolved and checked; `choices` records which option of each group it is made of.

    Args:
        revise: changes what was composed before it is resolved and checked.

    Raises:
        RequestError: an unknown key, group or option (with the nearest names), a bad value, a refused combination.
    """
    with hydra_context(), explained(overrides, config_name):
        config = hydra.compose(
            config_name, overrides=[*whole_groups(config_name), *overrides], return_hydra_config=True
        )
        choices = dict(config.get("choices", {}))
        choices |= {
            group: option for group, option in config.hydra.runtime.choices.items() if "/" not in group and option
        }
        given = {override.key_or_group: override.value() for override in parse(overrides)}
        for key, value in given.items():
            if key in PATH_KEYS and "${" in str(value):  # it would be interpolated sooner or later
                raise RequestError(f"{key}: a path that holds ${{ cannot be used here: give it another name")
        choices |= {group: given[group] for group in SEVERAL if isinstance(given.get(group), list)}
        for group in ALL_LOADED:
            choices.pop(group, None)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        config.choices = choices
        drop_strange_settings(config, overrides, saved=config_name == SAVED)
        if revise:
            revise(config)
        OmegaConf.resolve(config)
        _make_whole(config, overrides, config_name)
        if any(override.startswith("+") for override in overrides):
            _refuse_unknown(config, known_keys(config_name, overrides))
        check_targets(OmegaConf.to_container(config))
        if problem := wrong_value(config):
            raise RequestError(problem)
        if "sampler.spacing" in given and (times := config.sampler.get("times")):
            raise RequestError(
                f"sampler.spacing={given['sampler.spacing']} has no effect beside sampler.times={times}, which are "
                "the times themselves: leave it out, or add sampler.times=null"
            )
        model_is_known = bool(revise) or config_name == SAVED or not config.init  # else it waits for the checkpoint
        if model_is_known and (reason := refuse(config)):
            raise RefusedError(reason)
    return config


def defaults_of(choices: Mapping[Any, Any]) -> dict[str, Any]:
    """What conf/ alone says for these options of its groups; options that it does not have are passed over."""
    known = [
        f"{group}={option}" if isinstance(option, str) else f"{group}=[{','.join(map(str, option))}]"
        for group, option in choices.items()
        if group in group_names() and group not in ALL_LOADED and _has(group, option)
    ]
    with hydra_context():
        config = hydra.compose("train", overrides=known)
    container: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    return container


def _has(group: str, option: Any) -> bool:
    if isinstance(option, list) and group in SEVERAL:
        return bool(option) and all(_has(group, each) for each in option)
    return isinstance(option, str) and option in options_of(group)


def whole_groups(config_name: str) -> list[str]:
    """The overrides that load every option of the groups `ALL_LOADED`; a saved configuration has them."""
    groups = {"train": ("metric",), "evaluate": ALL_LOADED}.get(config_name, ())
    return [f"{group}=[{','.join(options_of(group))}]" for group in groups]


def known_keys(config_name: str, overrides: Sequence[str]) -> set[str]:
    """Every dotted key of the configuration that the overrides' choice of groups makes."""
    return set(dotted(OmegaConf.to_container(_of_groups(config_name, overrides))))


def _of_groups(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration that the overrides' choice of groups makes."""
    chosen = [override for override in overrides if override.partition("=")[0] in group_names()]
    with hydra_context():
        return hydra.compose(config_name, overrides=[*whole_groups(config_name), *chosen])


def _make_whole(config: DictConfig, overrides: Sequence[str], config_name: str) -> None:
    """Take 1e3 for 1000 where a whole number is due: by `checks.AT_LEAST`, or because the setting's default is one."""
    typed = (override.value() for override in parse(overrides) if not override.is_delete())
    if not any(_whole_float(leaf) for value in typed for leaf in _leaves(value)):
        return
    defaults = _of_groups(config_name, overrides)
    for key in dotted(OmegaConf.to_container(config)):
        value, default = OmegaConf.select(config, key), OmegaConf.select(defaults, key)
        if _whole_float(value) and (key in AT_LEAST or type(default) is int):
            OmegaConf.update(config, key, int(value))
        elif isinstance(value, ListConfig) and isinstance(default, ListConfig) and {*map(type, default)} == {int}:
            OmegaConf.update(config, key, [int(each) if _whole_float(each) else each for each in value])


def _whole_float(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


@contextlib.contextmanager
def explained(overrides: Sequence[str], config_name: str) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into one line that names what was wrong and what is near it."""
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            continue
        if (group := override.key_or_group) in group_names() and not override.is_delete():
            require_option(group, override.value())
        elif group in group_names() and group not in (*SEVERAL, *PRESETS):
            raise RequestError(f"{override.input_line}: there must be one; options: {', '.join(options_of(group))}")
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        known = known_keys(config_name, overrides)
        for override in parsed:
            key = override.key_or_group
            added = override.is_add() or override.is_force_add()
            if key not in group_names() and not added and not key.startswith("hydra") and key not in known:
                raise RequestError(
                    _belongs_elsewhere(key)
                    or f"there is no setting {key!r}{nearest(key, sorted({*known, *group_names()}))}"
                ) from error
        gone = [override.input_line for override in parsed if override.is_delete()]
        if gone and isinstance(error, OmegaConfBaseException):
            raise RequestError(f"{' '.join(gone)} takes away what is needed: leave it out, or give a value") from error
        raise RequestError(root_message(error)) from error


def _belongs_elsewhere(key: str) -> str | None:
    """A message that names the options, or recipes, which have this setting; None if none has it."""
    group, _, name = key.partition(".")
    if not name and (recipes := [f"recipe={each}" for each in options_of("recipe") if key in keys_of("recipe", each)]):
        return f"{key} belongs to {' or '.join(recipes)}: add {recipes[0]}"
    having = [o for o in options_of(group) if name in content_of(group, o)] if name else []
    options = [f"{group}={option}" for option in having]
    which = options[0] if len(options) == 1 else "the one that is meant"
    return f"{key} belongs to {' or '.join(options)}: add {which}" if options else None


def require_option(group: str, value: Any) -> None:
    """Refuse an option, or one of a list of them, that the group does not have.

    Raises:
        RequestError: there is one.
    """
    if isinstance(value, list) and group not in SEVERAL:
        raise RequestError(f"{group} takes one option, not a list: {', '.join(options_of(group))}")
    for option in value if isinstance(value, list) and value else [value]:
        if option not in options_of(group):
            near = nearest(str(option), options_of(group))
            shown = "null" if option is None else option
            raise RequestError(f"{group}={shown} does not exist{near}; options: {', '.join(options_of(group))}")


def _refuse_unknown(config: DictConfig, known: set[str]) -> None:
    """`+key=value` appends; a plain section (one without a `_target_`) takes nothing that nobody reads."""
    for key in dotted(OmegaConf.to_container(config)):
        section = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        if key not in known and "_target_" not in section and key.partition(".")[0] not in OPEN_SECTIONS:
            raise RequestError(f"there is no setting {key!r}{nearest(key, sorted(known))}")
