"""Drops the settings that a recipe has for a class where the user, or an experiment, chooses another class."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from ddpm.config.grammar import dotted, parse
from ddpm.config.groups import content_of, group_names, options_of
from ddpm.config.targets import target_of

DEBUG = "debug"
PRESETS_OVER_RECIPES = ("experiment", DEBUG)  # whose settings take the place of the recipe's


def drop_strange_settings(config: DictConfig, overrides: Sequence[str], *, saved: bool) -> None:
    """Drop the recipe's settings of a class from the sections of options that others than the recipe chose, in place.

    `recipe=digits` sets `network.channels` for its own network. With `network=mine` beside it, or in an experiment, the
    section keeps the settings that the option's file has, and those that the command line or the experiment names. A
    setting that both classes have, as `schedule.T`, keeps the recipe's value; where an experiment chooses the option,
    it has that of the option's file. `debug=smoke` is as a recipe here: it takes fewer steps of a sampler that has any.

    Args:
        saved: the configuration was composed before; what its experiment decided is done.
    """
    parsed = parse(overrides)
    typed = {override.key_or_group for override in parsed}
    recipe = config.choices.get("recipe")
    if recipe not in options_of("recipe"):
        return
    by_presets = set() if saved else _chosen_by_presets(config) - typed
    for group in (typed | by_presets) & set(group_names()):
        section, option = config.get(group), config.choices.get(group)
        if not isinstance(section, DictConfig) or "_target_" not in section or option not in options_of(group):
            continue
        if option == _option_of(str(recipe), group):
            continue
        theirs, own = keys_of("recipe", str(recipe), group), _content_of(group, str(option))
        for preset in PRESETS_OVER_RECIPES:
            if (chosen := config.choices.get(preset)) in options_of(preset):
                said = keys_of(preset, str(chosen), group)
                theirs -= said
                theirs |= said - own.keys() if preset == DEBUG else set()  # which is for any class
        for key in theirs:
            if key not in section or f"{group}.{key}" in typed:
                continue
            if key not in own:
                del section[key]
            elif group in by_presets:
                section[key] = own[key]


def _chosen_by_presets(config: DictConfig) -> set[str]:
    """The groups of which the experiment or the debugging preset chooses an option."""
    contents = [
        content_of(preset, str(chosen))
        for preset in PRESETS_OVER_RECIPES
        if (chosen := config.choices.get(preset)) in options_of(preset)
    ]
    defaults = [default for content in contents for default in content.get("defaults", []) if isinstance(default, dict)]
    return {str(key).removeprefix("override /") for default in defaults for key in default}


def keys_of(group: str, option: str, section: str | None = None) -> set[str]:
    """The keys that an option's file, and those on which it builds, have; of one section, if it is named."""
    content = content_of(group, option)
    found = {str(key) for key in (content.get(section) or {} if section else content) if key != "defaults"}
    for base in content.get("defaults", []):
        for where, names in base.items() if isinstance(base, dict) else [(group, base)]:
            where = str(where).lstrip("/")
            if names in options_of(where) and (where == group or section):
                found |= keys_of(where, str(names), section)
    return found


def _content_of(group: str, option: str) -> dict[str, Any]:
    """What an option's file, over those of its own group on which it builds, says."""
    content = content_of(group, option)
    whole: dict[str, Any] = {}
    for base in content.pop("defaults", []):
        if base in options_of(group):
            whole |= _content_of(group, str(base))
    return whole | content


def said_by(overrides: Sequence[str]) -> frozenset[str]:
    """The keys and groups that a command line decides, itself or by the experiment and the preset that it names."""
    parsed = parse(overrides)
    keys = {override.key_or_group for override in parsed}
    for override in parsed:
        if (group := override.key_or_group) in PRESETS_OVER_RECIPES and override.value() in options_of(group):
            said = dotted(content_of(group, override.value()))
            keys |= {key for key in said if not key.startswith("defaults")}
    return frozenset(keys)


def proposes(overrides: Sequence[str]) -> bool:
    """Whether the command line's recipe has a budget for which settings are proposed, and no word takes it away."""
    said = {override.key_or_group: override.value() for override in parse(overrides)}
    recipe = said.get("recipe")
    has_budget = recipe in options_of("recipe") and "budget" in keys_of("recipe", str(recipe))
    return has_budget and said.get("budget", "") is not None


def made_for_other_data(config: DictConfig, overrides: Sequence[str]) -> str | None:
    """A warning where data= was chosen, the recipe was left to the default, and another recipe is made for these data.

    None where there is nothing to say.
    """
    said = {override.key_or_group for override in parse(overrides)}
    chosen, own = str(config.choices.data), _option_of(str(config.choices.recipe), "data")
    if "recipe" in said or "data" not in said or own in (None, chosen):
        return None
    kind = target_of("data", chosen) if chosen in options_of("data") else ""
    better = [
        recipe
        for recipe in options_of("recipe")
        if (data := _option_of(recipe, "data"))
        and (data == chosen or ("budget" in keys_of("recipe", recipe) and target_of("data", data) == kind))
    ]
    if not better:
        return None
    return (
        f"the network and its training are recipe={config.choices.recipe}'s, which is made for data={own}, not for "
        f"data={chosen}: say which is meant, {' or '.join(f'recipe={recipe}' for recipe in better)}"
    )


def _option_of(recipe: str, group: str) -> str | None:
    """The option of a group that a recipe, or the one on which it builds, chooses; None if it says nothing."""
    if recipe not in options_of("recipe"):
        return None
    content = content_of("recipe", recipe)
    for base in content.get("defaults", []):
        found = base.get(f"override /{group}") if isinstance(base, dict) else _option_of(base, group)
        if found:
            return str(found)
    return None
