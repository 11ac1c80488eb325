"""Hydra reads and composes, which takes a fifth of the tests' time, once for the same words."""

import copy
import functools

import hydra
from hydra._internal.config_repository import ConfigRepository

from ddpm.config import groups


def remember():
    """Keep what is read from conf/ and from Hydra's own files, and what is composed of these alone."""
    read, compose, files, composed = ConfigRepository.load_config, hydra.compose, {}, {}

    @functools.wraps(read)
    def read_once(repository, config_path):
        if not config_path.startswith("hydra/") and not (groups.CONF / f"{config_path}.yaml").is_file():
            return read(repository, config_path)
        if config_path not in files:
            files[config_path] = read(repository, config_path)
        return copy.deepcopy(files[config_path])

    @functools.wraps(compose)
    def compose_once(config_name, overrides=(), **options):
        if config_name not in ("train", "evaluate") or [*groups.roots().values()] != [groups.CONF]:
            return compose(config_name, [*overrides], **options)
        key = (config_name, *overrides, *options.items())
        if key not in composed:
            composed[key] = compose(config_name, [*overrides], **options)
        return copy.deepcopy(composed[key])

    ConfigRepository.load_config, hydra.compose = read_once, compose_once
