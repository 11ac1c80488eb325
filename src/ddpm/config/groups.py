"""TODO"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra

CONF = Path(__file__).parents[3] / "conf"
SEVERAL = ("logger", "metric")  # groups that take a list of options, too


def options_of(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def group_names() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


@contextlib.contextmanager
def hydra_context() -> Iterator[None]:
    """Hydra, reading conf/."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield
