"""Hydra composes the options of groups, which takes a tenth of a second, once for the same options."""

import contextlib
import functools
import json
import pickle
from dataclasses import replace

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore

from ddpm.config import groups
from ddpm.config.compose import SAVED


def remember():
    """Keep what is read from conf/ and from Hydra's own files, and what is composed of these, or of a saved one.

    What a command line says of single settings is applied by Hydra, each time. A pickle is read several times faster
    than a configuration is copied.
    """
    read, choose, store = ConfigRepository.load_config, config_loader_impl.create_defaults_list, ConfigStore.store
    compose = ConfigLoaderImpl._compose_config_from_defaults_list
    known_choices = defaults_list._create_interpolation_map
    files, chosen, composed, saved = {}, {}, {}, {}
    now_saved = None  # the text of the saved configuration that Hydra would find, if it can be told from others by it

    @functools.wraps(store)
    def store_once(self, name, node, **options):
        nonlocal now_saved
        if name != SAVED:
            return store(self, name, node, **options)
        now_saved = None
        with contextlib.suppress(TypeError, ValueError):
            now_saved = json.dumps(node)
        if now_saved in saved:
            self.repo[f"{SAVED}.yaml"] = pickle.loads(saved[now_saved])
            return
        store(self, name, node, **options)
        if now_saved:
            saved[now_saved] = pickle.dumps(self.repo[f"{SAVED}.yaml"])

    @functools.wraps(read)
    def read_once(repository, config_path):
        key = (config_path, now_saved if config_path == SAVED else "")
        ours = config_path.startswith("hydra/") or (groups.CONF / f"{config_path}.yaml").is_file() or key[1]
        if not ours:
            return read(repository, config_path)
        if key not in files:
            files[key] = pickle.dumps(read(repository, config_path))
        return pickle.loads(files[key])

    @functools.wraps(choose)
    def choose_once(repo, config_name, overrides_list, **options):
        known = config_name in ("train", "evaluate") or (config_name == SAVED and now_saved)
        if not known or [*groups.roots().values()] != [groups.CONF]:
            return choose(repo, config_name, overrides_list, **options)
        now = [each for each in overrides_list if not each.is_sweep_override()]  # the others are of its cells
        settings = [each for each in now if not repo.group_exists(each.key_or_group)]
        of_groups = [each for each in now if repo.group_exists(each.key_or_group)]
        base = now_saved if config_name == SAVED else ""
        key = (config_name, base, *(each.input_line for each in of_groups), *options.items())
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
    ConfigStore.store = store_once
    ConfigRepository.load_config, config_loader_impl.create_defaults_list = read_once, choose_once
    ConfigLoaderImpl._compose_config_from_defaults_list = compose_once
