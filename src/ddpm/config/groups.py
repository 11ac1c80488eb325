"""conf/: its groups and options, those that a user adds to them, and Hydra reading all of it.

Options come from this package's conf/, from installed packages that register one under the entry point `ddpm.plugins`,
and from the folders of `--config-dir`. An option's name belongs to one of them.
"""

import contextlib
import copy
import functools
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from ddpm.config.errors import RequestError

_PACKAGED = Path(__file__).parents[1] / "conf"  # in a wheel; in a clone it lies at the top
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"
ALL_LOADED = ("metric", "figure")  # groups of which every option is loaded, whoever brought it
SEVERAL = ("logger", "callbacks", *ALL_LOADED)  # groups that take a list of options, too
ENTRY_POINT = "ddpm.plugins"
OWN = "DDPM_CONFIG_DIR"  # in the environment, which cells of a sweep, ranks and cluster jobs inherit: --config-dir


def add_own(folder: str) -> None:
    """Add a user's folder of groups; the modules that its options name may lie beside it.

    Raises:
        RequestError: it is no folder, or holds no group.
    """
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise RequestError(f"--config-dir={folder} is not a folder")
    known = _groups_in(CONF)
    if not set(_groups_in(path)) & set(known):
        raise RequestError(
            f"--config-dir={folder} holds no group: it needs a folder {folder}/GROUP with OPTION.yaml in it; "
            f"groups are {', '.join(known)}"
        )
    earlier = [each for each in os.environ.get(OWN, "").split(os.pathsep) if each]
    os.environ[OWN] = os.pathsep.join(dict.fromkeys([*earlier, str(path)]))


def roots() -> dict[str, Path]:
    """The folders of groups, by whose they are: ours first.

    Raises:
        RequestError: two of them have an option of the same name.
    """
    return _roots(os.environ.get(OWN, ""))


@functools.cache
def _roots(own: str) -> dict[str, Path]:
    found = {"ddpm": CONF}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT):
        found[f"the plugin {entry.name}"] = _conf_of_package(entry.name, entry.value)
    for folder in filter(None, own.split(os.pathsep)):
        found[f"--config-dir={folder}"] = Path(folder)
        beside = Path(folder).parent
        while (beside / "__init__.py").is_file():  # the folder lies in the package that its files name
            beside = beside.parent
        if str(beside) not in sys.path:
            sys.path.append(str(beside))
    owner: dict[Path, str] = {}
    for name, root in found.items():
        for file in sorted(root.glob("*/*.yaml")):
            option = file.relative_to(root)
            if option in owner:
                raise RequestError(
                    f"{option.parent}={option.stem} is both {owner[option]}'s and {name}'s: one needs another name"
                )
            owner[option] = name
    return found


def _conf_of_package(name: str, module: str) -> Path:
    """The folder conf/ in an installed package, which is not imported for it."""
    spec = importlib.util.find_spec(module.partition(":")[0])
    folders = list(spec.submodule_search_locations or []) if spec else []
    conf = Path(folders[0]) / "conf" if folders else None
    if conf is None or not conf.is_dir():
        raise RequestError(f"the plugin {name} registers {module}, which is no package with a folder conf/ in it")
    return conf


def _groups_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and any(path.glob("*.yaml")))


def file_of(group: str, option: str) -> Path:
    """The file of an option that exists."""
    return next(file for root in roots().values() if (file := root / group / f"{option}.yaml").is_file())


def content_of(group: str, option: str) -> dict[str, Any]:
    """What the file of an option that exists says, as plain values; interpolations are left as text."""
    return content(file_of(group, option))


def content(file: Path) -> dict[str, Any]:
    """What a file of groups says, as plain values; interpolations are left as text."""
    return copy.deepcopy(_content(file, file.stat().st_mtime_ns))  # callers may change it


@functools.cache
def _content(file: Path, written: int) -> dict[str, Any]:
    """Read a file once for each time it was written, since a command asks for some files several times."""
    found: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(file))  # type: ignore[assignment]
    return found


def options_of(group: str) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for root in roots().values() for path in (root / group).glob("*.yaml"))


def group_names() -> list[str]:
    """The groups, sorted."""
    return list(_groups_of_conf())


@functools.cache
def _groups_of_conf() -> tuple[str, ...]:
    """Look into conf/ once, since each composition asks for its groups several times."""
    return tuple(_groups_in(CONF))


@contextlib.contextmanager
def hydra_context() -> Iterator[None]:
    """Hydra, reading conf/ and what was added to it."""
    GlobalHydra.instance().clear()
    show_to_hydra()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@functools.cache
def show_to_hydra() -> None:
    """Let Hydra find what was added to conf/, in every configuration that it reads from now on."""
    Plugins.instance().register(_Added)


class _Added(SearchPathPlugin):
    """Hydra asks this for folders of groups."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for name, root in roots().items():
            if root != CONF:
                search_path.append(name, f"file://{root}")
