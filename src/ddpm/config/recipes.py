"""What a recipe says of a class goes when the user chooses another class than the recipe does."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.config.grammar import parse
from ddpm.config.groups import file_of, group_names, options_of


def drop_strange_settings(config: DictConfig, overrides: Sequence[str]) -> None:
    """Drop the recipe's settings of a class from the sections of options that the command line chose, in place.

    `recipe=digits` sets `network.channels` for its own network. With `network=mine` beside it, the section keeps what
    the option's file has, and what the command line or an experiment says of it.
    """
    parsed = parse(overrides)
    typed = {override.key_or_group for override in parsed}
    recipe = config.choices.get("recipe")
    if recipe not in options_of("recipe"):
        return
    for group in typed & set(group_names()):
        section, option = config.get(group), config.choices.get(group)
        if not isinstance(section, DictConfig) or "_target_" not in section or option not in options_of(group):
            continue
        strange = _keys("recipe", str(recipe), group) - _keys(group, str(option))
        for preset in ("experiment", "debug"):
            if (chosen := config.choices.get(preset)) in options_of(preset):
                strange -= _keys(preset, str(chosen), group)
        for key in strange:
            if key in section and f"{group}.{key}" not in typed:
                del section[key]


def _keys(group: str, option: str, section: str | None = None) -> set[str]:
    """The keys that an option's file, and those on which it builds, have; of one section, if it is named."""
    content: Any = OmegaConf.load(file_of(group, option))
    found = {str(key) for key in (content.get(section) or {} if section else content) if key != "defaults"}
    for base in content.get("defaults", []):
        for where, names in base.items() if isinstance(base, DictConfig) else [(group, base)]:
            where = str(where).lstrip("/")
            if names in options_of(where) and (where == group or section):
                found |= _keys(where, str(names), section)
    return found
