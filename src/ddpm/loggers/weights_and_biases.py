"""Weights & Biases: online where a key is configured, offline in the run folder where none is."""

import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL.Image import Image

from ddpm.checkpoints.checkpoint import LAST
from ddpm.config.errors import first_line
from ddpm.files import name_again, write_whole
from ddpm.loggers.by_t import edges_of_t
from ddpm.loggers.logger import LoggedRun, RunLogger
from ddpm.messages import warn

STOPPED = (130, 143)  # exit codes of a run that was told to stop
STEP = "trainer/global_step"
TEXTS = ("project", "entity", "name", "group", "notes", "job_type", "id", "dir")  # settings of wandb.init
MODES = ("online", "offline", "disabled", "shared")
# What W&B's table of runs shows of a metric: its last value, or what is said here. The smallest loss of a single batch
# is luck; the smallest bits/dim of a validation says whether the model has been better than it is now.
SUMMARIES = {
    "train/*": None,
    "train/gradient_norm": "max",
    "train/images_per_second": "mean",
    "train/data_wait": "mean",
    "validation/bits_per_dim_*": "min,last",
    "validation/terms_by_t": None,
    "evaluation/*": None,
    "samples": None,
    "progressive": None,
    "data": None,
    "training": None,
}


class WandB(RunLogger, WandbLogger):
    """Logs a run to W&B, which is a process of its own and may die: the run goes on, and metrics.csv has its numbers.

    Args:
        run: of wandb.init.
        checkpoint: the file that becomes an artifact at the end of training, if one is to.
    """

    def __init__(self, run: Any, checkpoint: Path | None) -> None:
        super().__init__(experiment=run)
        self.checkpoint, self.lost = checkpoint, False

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        import wandb

        known = {"checkpoint", *inspect.signature(wandb.init).parameters}
        if unknown := sorted(set(settings) - known):
            raise ValueError(f"logger.wandb.{unknown[0]} is no setting of wandb.init, nor checkpoint")
        if ours := sorted(set(settings) & {"config", "settings"}):
            raise ValueError(f"logger.wandb.{ours[0]} is the framework's own: leave it out")
        for key in TEXTS:
            if not isinstance(value := settings.get(key), str | None):
                raise ValueError(f"logger.wandb.{key}={value} must be a text")
        tags = settings.get("tags")
        if tags is not None and not (isinstance(tags, Sequence) and all(isinstance(tag, str) for tag in tags)):
            raise ValueError(f"logger.wandb.tags={tags} must be a list of texts")
        if (mode := settings.get("mode")) not in (None, *MODES):
            raise ValueError(f"logger.wandb.mode={mode} must be one of {', '.join(MODES)}")
        for key, value in settings.items():
            field = key if key in wandb.Settings.model_fields else f"run_{key}"  # of wandb.init's "id", "tags", ...
            if value is not None and field in wandb.Settings.model_fields:
                try:
                    wandb.Settings(**{field: value})
                except (ValueError, wandb.Error) as error:
                    raise ValueError(f"W&B refuses logger.wandb.{key}={value}: {_refusal(error)[1]}") from None
        _check_environment()

    @classmethod
    def of(cls, run: LoggedRun) -> "WandB":
        return _started(run.folder, run.config, run.settings, run.identity, step=run.step, earlier=run.earlier)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._send(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._send(super().log_image, key, images, step, **kwargs)

    def log_picture(self, name: str, picture: Image, step: int) -> None:
        self.log_image(name, [picture], step, caption=[f"step {step:,}"])

    @rank_zero_only
    def log_film(self, name: str, file: Path, step: int) -> None:
        import wandb

        self._send(self.experiment.log, {name: wandb.Video(str(file), format="gif"), STEP: step})

    @rank_zero_only
    def log_by_t(self, name: str, means: Sequence[float], T: int, step: int) -> None:
        import wandb

        histogram = wandb.Histogram(np_histogram=(np.asarray(means), edges_of_t(T)))
        self._send(self.experiment.log, {name: histogram, STEP: step})

    def how_to_look(self) -> list[str]:
        run = self.experiment
        if run.offline:
            folder = shlex.quote(str(Path(run.dir).parent))
            return [
                f"look at the run (offline): wandb leet {folder}",
                f"send it to W&B:            wandb sync {folder}",
            ]
        return [f"W&B run: {run.url}"] if run.url else []

    def finish(self, code: int) -> None:
        """Enter how the run ended. W&B takes exit code 0 for finished and others for failed.

        A run that was told to stop is neither: it is marked as preempted, W&B's word for one that may go on.
        """
        if code in STOPPED:
            self._send(self.experiment.mark_preempting)
        self._send(self.experiment.finish, exit_code=code)

    def _send(self, call: Callable[..., None], *arguments: Any, **named: Any) -> None:
        if self.lost:
            return
        try:
            call(*arguments, **named)
        except Exception as error:  # its client raises what its sockets and queues do
            self.lost = True
            what = f"W&B is gone ({type(error).__name__}: {error})"
            warn(f"{what}; the run goes on, and metrics.csv has its numbers")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status == "success" and self.checkpoint is not None and not self.experiment.disabled:
            self._send(self._log_checkpoint, self.checkpoint)

    def _log_checkpoint(self, checkpoint: Path) -> None:
        import wandb

        kept = Path(self.experiment.dir).parent / checkpoint.name  # as it is now, for `wandb sync` later
        name_again(checkpoint, kept)
        artifact = wandb.Artifact(f"model-{self.experiment.id}", "model")
        artifact.add_file(str(kept), policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact)


def _check_environment() -> None:
    """Read W&B's environment as W&B will; an empty WANDB_MODE, as containers have it, is none.

    Raises:
        ValueError: there is something in it that W&B refuses.
    """
    import wandb

    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)
    try:
        wandb.Settings().update_from_env_vars(dict(os.environ))
    except ValueError as error:
        name, what = _refusal(error)
        raise ValueError(f"W&B refuses {name or error} in its environment (WANDB_{name.upper()}): {what}") from None


def _refusal(error: Exception) -> tuple[str, str]:
    """The setting that W&B refuses, where it names one, and what is wrong with it.

    Pydantic's messages have three lines: a heading, the setting, what is wrong with it. W&B's own have one.
    """
    if not isinstance(error, ValueError):
        return "", first_line(error)
    _, name, what, *_ = [*map(str.strip, str(error).splitlines()), "", ""]
    return name, what.partition(" [type=")[0]


def _has_key() -> bool:
    """Whether a usable key is configured."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.Error as error:
        print(f"W&B has no usable key, so the run is logged offline: {first_line(error)}", file=sys.stderr)
        return False


def _started(
    folder: Path,
    config: dict[str, Any],
    asked: Mapping[str, Any],
    identity: dict[str, str],
    *,
    step: int = 0,
    earlier: Path | None = None,
) -> WandB:
    """Start W&B in `folder`: online where a key is configured, offline where none is; WANDB_MODE wins.

    Args:
        asked: the settings of W&B.
        step: what a training run goes on from.
        earlier: a run folder whose W&B run goes on here, where it is online and was. W&B cannot resume an offline run:
            going on with the training then makes a second one, which says what it continues.
    """
    import wandb

    _check_environment()
    wandb.setup(wandb.Settings(silent=True))
    asked = dict(asked)
    checkpoint = folder / "checkpoints" / LAST if asked.pop("checkpoint", False) else None
    mode: Any = os.environ.get("WANDB_MODE", asked.pop("mode", None))
    mode = mode or ("online" if _has_key() else "offline")
    settings = {"config": config, **identity, **asked}
    again = None
    if earlier and (before := _newest(earlier)):
        was_online, identifier = before
        if was_online and mode == "online":
            again = {"id": identifier, "resume": "allow", **asked, **({"config": config} if step else {})}
        if step:
            settings["config"] = {**config, "continues": identifier, "continues_from_step": step}
            settings["notes"] = f"continues {identifier} from step {step}"
    start = functools.partial(wandb.init, dir=folder)  # Lightning's own call earns a warning
    try:
        run = start(mode=mode, settings=wandb.Settings(console="off", init_timeout=30), **(again or settings))
    except wandb.Error as error:
        print(f"W&B cannot be reached, so the run is logged offline: {first_line(error)}", file=sys.stderr)
        run = start(mode="offline", settings=wandb.Settings(console="off"), **settings)
    run.define_metric(STEP)
    for metric, summary in SUMMARIES.items():
        run.define_metric(metric, step_metric=STEP, step_sync=True, summary=summary)
    if run.url:
        write_whole(folder / "wandb" / "url", f"{run.url}\n")
    return WandB(run, checkpoint)


def _newest(run: Path) -> tuple[bool, str] | None:
    """Of the W&B runs in a run folder the last: whether it was online, and its identifier."""
    found = max((run / "wandb").glob("*run-*-*"), key=lambda path: path.name.rpartition("run-")[2], default=None)
    return None if found is None else (found.name.startswith("run-"), found.name.rpartition("-")[2])
