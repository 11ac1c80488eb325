"""Hydra composes the options of groups, which takes a tenth of a second, once for the same options."""

import functools
import pickle
from dataclasses import replace

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore

from ddpm.config import groups


def remember():
    """Keep what is read from conf/ and from Hydra's own files, and what is composed of these alone.

    What a command line says of single settings is applied by Hydra, each time. A pickle is read several times faster
    than a configuration is copied.
    """
    read, choose = ConfigRepository.load_config, config_loader_impl.create_defaults_list
    compose = ConfigLoaderImpl._compose_config_from_defaults_list
    known_choices = defaults_list._create_interpolation_map
    files, chosen, composed = {}, {}, {}

    @functools.wraps(read)
    def read_once(repository, config_path):
        if not config_path.startswith("hydra/") and not (groups.CONF / f"{config_path}.yaml").is_file():
            return read(repository, config_path)
        if config_path not in files:
            files[config_path] = pickle.dumps(read(repository, config_path))
        return pickle.loads(files[config_path])

    @functools.wraps(choose)
    def choose_once(repo, config_name, overrides_list, **options):
        if config_name not in ("train", "evaluate") or [*groups.roots().values()] != [groups.CONF]:
            return choose(repo, config_name, overrides_list, **options)
        now = [each for each in overrides_list if not each.is_sweep_override()]  # the others are of its cells
        settings = [each for each in now if not repo.group_exists(each.key_or_group)]
        of_groups = [each for each in now if repo.group_exists(each.key_or_group)]
        key = (config_name, *(each.input_line for each in of_groups), *options.items())
        if key not in chosen:
            chosen[key] = choose(repo, config_name, of_groups, **options)
        return replace(chosen[key], config_overrides=[*chosen[key].config_overrides, *settings])

    @functools.wraps(known_choices)
    def known_where_asked_for(overrides, defaults, self_added):
        asked_for = any(not each.is_self() and each.is_interpolation() for each in defaults)
        return known_choices(overrides, defaults, self_added) if asked_for else None

    @functools.wraps(compose)
    def compose_once(loader, defaults, repo):
        if not any(defaults is each.defaults for each in chosen.values()):
            return compose(loader, defaults, repo)
        if id(defaults) not in composed:
            composed[id(defaults)] = pickle.dumps(compose(loader, defaults, repo))
        return pickle.loads(composed[id(defaults)])

    # Each composition copies whatever was ever stored in order to look for files anew; those who read there copy, too.
    ConfigStore.__deepcopy__ = lambda store, memo: store
    # What was chosen so far is for options that are named by interpolation: most of the time of a list of options.
    defaults_list._create_interpolation_map = known_where_asked_for
    ConfigRepository.load_config, config_loader_impl.create_defaults_list = read_once, choose_once
    ConfigLoaderImpl._compose_config_from_defaults_list = compose_once
