"""TODO"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.config.compose import _explained, compose
from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse
from ddpm.config.groups import CONF, group_names, options_of
from ddpm.config.moved import translated

LARGEST = 1 << 20  # bytes of a config.yaml; ours have 2 kB


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.yaml, which may come from a stranger: plain values, interpolations left as text.

    Raises:
        ValueError: it is not a configuration.
    """
    file = folder / "config.yaml"
    try:
        large = file.stat().st_size > LARGEST
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
    return {str(key): value for key, value in translated(tree).items()}


def compose_saved(base: dict[str, Any], overrides: Sequence[str], open_groups: Sequence[str]) -> DictConfig:
    """A saved configuration under overrides; an option chosen from one of `open_groups` replaces the saved section.

    `base` may be a stranger's.

    Raises:
        RequestError: it lacks a section or interpolates, or as `compose`.
    """
    for section in ("choices", "data", "network", "schedule", "optimizer", "ema", "every", "evaluation", "trainer"):
        _section(base, section)
    chosen = {override.key_or_group for override in parse(overrides)} & set(group_names())
    node = {str(key): value for key, value in OmegaConf.load(CONF / "train.yaml").items()}  # what it is older than
    node |= {key: _without_interpolation(value) for key, value in base.items()}
    node["trainer"] = {**OmegaConf.load(CONF / "trainer" / "auto.yaml"), **node["trainer"]}
    # Before version 0.2 a configuration did not name the classes of its metrics.
    shipped = {name: dict(OmegaConf.load(CONF / "metric" / f"{name}.yaml")) for name in options_of("metric")}
    node["evaluation"] = {**node["evaluation"], **_filled(node["evaluation"], shipped)}
    for key in (*chosen, "hydra", "defaults"):
        node.pop(key, None)
    node |= {"out": None, "resume": None, "defaults": ["_self_", *({group: None} for group in open_groups)]}
    with _explained(overrides, "train"):
        ConfigStore.instance().store(name="saved", node=node)
    config = compose(overrides, "saved")
    keep_precision(config, base)
    return config


def _filled(saved: dict[str, Any], entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The entries under what the saved configuration says of each."""
    sections = {name: saved.get(name, {}) for name in entries}
    return {name: {**entries[name], **said} if isinstance(said, dict) else said for name, said in sections.items()}


def keep_precision(config: DictConfig, base: dict[str, Any]) -> None:
    """What `trainer.precision=auto` once came to is the run's, whatever this machine would make of it."""
    if config.trainer.precision == "auto":
        config.trainer.precision = base["trainer"].get("precision", "auto")


def _without_interpolation(tree: Any) -> Any:
    """The same values, if none would be looked up here: in the environment, say. Ours are resolved when saved."""
    if isinstance(tree, dict):
        return {str(key): _without_interpolation(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_interpolation(value) for value in tree]
    if isinstance(tree, str) and "${" in tree:
        raise RequestError(f"the saved configuration is refused: {tree!r} is an interpolation, and ours hold none")
    return tree


def _section(base: dict[str, Any], name: str) -> dict[str, Any]:
    section = base.get(name)
    if not isinstance(section, dict):
        raise RequestError(f"the saved configuration has no section {name!r}: it is not one of this framework's")
    return section
