"""Where a run's numbers and pictures go: metrics.csv in the run folder, always; others where they are asked for."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from PIL.Image import Image

from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.config import groups
from ddpm.config.saved import plain
from ddpm.instantiate import class_of
from ddpm.loggers.logger import LoggedRun, RunLogger
from ddpm.loggers.metrics_csv import MetricsCsv
from ddpm.processes import is_rank_zero
from ddpm.runs import records


def check(config: DictConfig) -> None:
    """Refuse settings of loggers that cannot work, before there is a run.

    Raises:
        ValueError: there is one.
    """
    for logger, settings in _asked(plain(config)):
        logger.check(settings)


def of_training(folder: Path, config: dict[str, Any], step: int = 0) -> list[RunLogger]:
    """The loggers of a run that starts, or goes on from `step`; only rank 0 has any."""
    identity = {**_identity(folder, config), "job_type": "train"}
    return _made(LoggedRun(folder, config, identity, step, earlier=folder if step else None))


def of_evaluation(folder: Path, config: dict[str, Any], saved: Checkpoint) -> list[RunLogger]:
    """The loggers of an evaluation of `saved` in `folder`; only rank 0 has any.

    W&B shows it in the run that made the checkpoint where that is finished and both are online. Elsewhere it is a run
    of its own in the same group.
    """
    identity = _identity(saved.run, config) if saved.run else {"name": f"{config['name']} {saved.name}"}
    identity |= {"name": f"{identity['name']} evaluation {folder.name}", "job_type": "eval"}
    finished = saved.step == saved.config.get("max_steps")
    return _made(LoggedRun(folder, config, identity, earlier=saved.run if finished else None))


def log_picture(loggers: Sequence[Logger], name: str, picture: Image, step: int) -> None:
    """Show a picture in every logger that takes pictures."""
    for logger in _ours(loggers):
        logger.log_picture(name, picture, step)


def log_film(loggers: Sequence[Logger], name: str, file: Path, step: int) -> None:
    """Show a film, a GIF, in every logger that takes films."""
    for logger in _ours(loggers):
        logger.log_film(name, file, step)


def log_by_t(loggers: Sequence[Logger], name: str, means: Sequence[float], T: int, step: int) -> None:
    """Show a histogram over t, whose bars are `by_t.means_by_t`, in every logger that takes histograms."""
    for logger in _ours(loggers):
        logger.log_by_t(name, means, T, step)


@contextlib.contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Enter in the loggers how the run ended, and send what they still hold."""
    code = 0
    try:
        yield
    except BaseException as error:
        code = getattr(error, "code", 130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    finally:
        for logger in _ours(loggers):
            logger.finish(code)


def how_to_look(loggers: Sequence[Logger]) -> list[str]:
    """What to type to see the run, a line each."""
    return [line for logger in _ours(loggers) for line in logger.how_to_look()]


def _made(run: LoggedRun) -> list[RunLogger]:
    if not is_rank_zero():
        return []
    asked = [logger.of(dataclasses.replace(run, settings=settings)) for logger, settings in _asked(run.config)]
    return [MetricsCsv.of(run), *asked]


def _asked(config: Mapping[str, Any]) -> list[tuple[type[RunLogger], dict[str, Any]]]:
    """The loggers that the sections `logger.NAME` of the configuration ask for, each with its settings."""
    asked = config.get("logger") or {}
    if strange := [f"logger.{name}={each}" for name, each in asked.items() if not isinstance(each, Mapping | None)]:
        key = strange[0].partition("=")[0]
        raise ValueError(f"{strange[0]} must be settings of its own, as {key}.NAME=VALUE")
    found = []
    for name, section in asked.items():
        settings = dict(section or {})
        logger = class_of(_target(name, settings), RunLogger)  # type: ignore[type-abstract]
        settings.pop("_target_", None)
        found.append((logger, settings))
    return found


def _target(name: str, settings: Mapping[str, Any]) -> str:
    """The class of a logger; a run that an earlier version wrote does not say it."""
    if "_target_" in settings:
        return str(settings["_target_"])
    if name not in (known := groups.options_of("logger")):
        raise ValueError(f"logger.{name} names no class as its _target_, and is none of {', '.join(known)}")
    return str(groups.content_of("logger", name).get(name, {}).get("_target_"))


def _ours(loggers: Sequence[Logger]) -> Sequence[RunLogger]:
    """The loggers of a Trainer of ours, all of which were made here."""
    return cast(Sequence[RunLogger], loggers)


def _identity(run: Path, config: dict[str, Any]) -> dict[str, str]:
    """Name and group of a run in a dashboard: in a sweep what varies, and the sweep; else, twice, its name and start.

    The group of a single run holds what goes on with it offline, and its evaluations.
    """
    cell = None
    with contextlib.suppress(ValueError):  # a file beside the run folder that is no sweep's
        cell = records.of(run)
    name = cell.name if cell else f"{config['name']} {run.name}"
    return {"name": name, "group": f"sweep {run.parent.name}" if cell else name}
