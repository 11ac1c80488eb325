"""Saved configurations: reading a run's config.yaml, and composing anew what a checkpoint or a run folder holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.config import origin
from ddpm.config.compose import SAVED, compose, explained
from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse
from ddpm.config.groups import CONF, SEVERAL, content, content_of, group_names, options_of
from ddpm.config.roles import open_to_evaluation
from ddpm.config.trust import NOT_FOLLOWED
from ddpm.messages import warn

MAX_BYTES = 1 << 20  # bytes of a config.yaml; ours have 2 kB
EXTENDED = ("optimizer", "every", "validation", "best", "stop")  # sections of which the first versions lacked settings


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.yaml, which may come from a stranger, as it is: plain values, interpolations left as text.

    Raises:
        ValueError: it is not a configuration.
    """
    file = folder / "config.yaml"
    try:
        large = file.stat().st_size > MAX_BYTES
        text = "" if large else file.read_text(encoding="utf-8")
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
        tree = None if aliases else OmegaConf.to_container(OmegaConf.create(text))
    except (OSError, ValueError, RecursionError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{file} cannot be read as a configuration") from error
    if large:
        raise ValueError(f"{file} is larger than any configuration")
    if aliases:
        raise ValueError(f"{file} refers to itself, as no configuration of ours does")
    if not isinstance(tree, dict):
        raise ValueError(f"{file} is not a configuration")
    return {str(key): value for key, value in tree.items()}


def compose_saved(base: dict[str, Any], overrides: Sequence[str]) -> DictConfig:
    """A saved configuration under overrides; an option chosen of a group that may change replaces the saved section.

    `base` may be a stranger's.

    Raises:
        RequestError: it lacks a section or interpolates, or as `compose`.
    """
    needed = ("choices", "data", "network", "schedule", "optimizer", "ema", "every", "evaluation", "trainer")
    for section in (*needed, *(group for group in group_names() if group in base and group not in SEVERAL)):
        section_of(base, section)
    chosen = {override.key_or_group for override in parse(overrides)} & set(group_names())
    node = content(CONF / "train.yaml")
    base = completed(base)
    # Where a saved configuration is older than a setting, the setting has its default.
    node |= {key: without_interpolation(value) for key, value in base.items()}
    node["trainer"] = {**content_of("trainer", "auto"), **node["trainer"]}
    warning = node.pop(NOT_FOLLOWED, None)
    for key in (*chosen, "hydra", "defaults"):
        node.pop(key, None)
    node |= {"out": None, "resume": None, "defaults": ["_self_", *({group: None} for group in open_groups())]}
    with explained(overrides, "train"):
        ConfigStore.instance().store(name=SAVED, node=node)
    config = compose(overrides, SAVED)
    keep_settled(config, base)
    if warning:
        warn(warning)
    return config


def completed(base: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration in which conf/'s defaults stand for settings that did not exist when it was saved.

    These are settings of the sections in `EXTENDED`, and of the metrics of conf/metric/ in its `evaluation` section.
    """
    section = base.get("evaluation")
    if not isinstance(section, dict):
        return base
    train = content(CONF / "train.yaml")
    base = {
        **base,
        **{name: {**train[name], **own} for name in EXTENDED if isinstance(own := base.get(name, {}), dict)},
    }
    known = {name: content_of("metric", name) for name in options_of("metric")}
    own = {name: section[name] for name in known if isinstance(section.get(name), dict)}
    filled = {name: {**default, **own.get(name, {})} for name, default in known.items()}
    return {**base, "evaluation": {**section, **filled}}


def open_groups() -> list[str]:
    """The groups of which a saved configuration may take another option: those that say nothing of what was trained."""
    return [group for group in group_names() if open_to_evaluation(group)]


def keep_settled(config: DictConfig, base: dict[str, Any]) -> None:
    """Replace what was left open by what it came to when the run began: the precision, and the number of classes."""
    if config.trainer.precision == "auto":
        config.trainer.precision = base["trainer"].get("precision", "auto")
    if config.condition.get("classes", 0) is None:
        config.condition.classes = base["condition"].get("classes")


def without_interpolation(tree: Any) -> Any:
    """The same tree, refused where it holds an interpolation, which could read the environment; ours are resolved."""
    if isinstance(tree, dict):
        return {str(key): without_interpolation(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_interpolation(value) for value in tree]
    if isinstance(tree, str) and "${" in tree:
        raise RequestError(f"the saved configuration is refused: {tree!r} is an interpolation, and ours hold none")
    return tree


def section_of(base: dict[str, Any], name: str) -> dict[str, Any]:
    """A section that every saved configuration has.

    Raises:
        RequestError: this one has not.
    """
    section = base.get(name)
    if not isinstance(section, dict):
        raise RequestError(f"the saved configuration has no section {name!r}: it is not one of this framework's")
    return section


def sign(config: DictConfig) -> None:
    """Sign a run's configuration as this user's own: what it says of where to read and write is then followed later."""
    config[origin.SIGNATURE] = origin.signed(plain(config)).get(origin.SIGNATURE)


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers, as a checkpoint holds it."""
    container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return container
