"""Where a run's numbers and pictures go: metrics.csv in the run folder, always; W&B and TensorBoard where asked for."""

import contextlib
import csv
import functools
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from PIL.Image import Image
from torch import Tensor

from ddpm.checkpoints.checkpoint import LAST, Checkpoint
from ddpm.files import write_whole
from ddpm.processes import is_rank_zero
from ddpm.runs import records

BINS = 25  # of t in a histogram
STOPPED = (130, 143)  # exit codes of a run that was told to stop
STEP = "trainer/global_step"
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
}

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Row = dict[str, float | int | str]  # text: as an earlier start of the run wrote it


def check(config: DictConfig) -> None:
    """Whether W&B would take its settings, before there is a run.

    Raises:
        ValueError: there is one that it does not know.
    """
    asked = config.get("logger") or {}
    if "wandb" in asked:
        import wandb

        known = {"checkpoint", *inspect.signature(wandb.init).parameters}
        if unknown := sorted(set(asked["wandb"] or {}) - known):
            raise ValueError(f"logger.wandb.{unknown[0]} is no setting of wandb.init, nor checkpoint")


def of_training(folder: Path, config: dict[str, Any], step: int = 0) -> list[Logger]:
    """The loggers of a run that starts, or goes on from `step`; only rank 0 has any."""
    identity = {**_identity(folder, config), "job_type": "train"}
    return _chosen(folder, config, identity, step=step, earlier=folder if step else None)


def of_evaluation(folder: Path, config: dict[str, Any], saved: Checkpoint) -> list[Logger]:
    """The loggers of an evaluation of `saved` in `folder`; only rank 0 has any.

    W&B shows it in the run that made the checkpoint where that is finished and both are online. Elsewhere it is a run
    of its own in the same group.
    """
    identity = _identity(saved.run, config) if saved.run else {"name": f"{config['name']} {saved.name}"}
    identity |= {"name": f"{identity['name']} evaluation {folder.name}", "job_type": "eval"}
    finished = saved.step == saved.config.get("max_steps")
    return _chosen(folder, config, identity, earlier=saved.run if finished else None)


def _chosen(
    folder: Path, config: dict[str, Any], identity: dict[str, str], *, step: int = 0, earlier: Path | None = None
) -> list[Logger]:
    if not is_rank_zero():
        return []
    asked = config.get("logger") or {}
    made: list[Logger] = [MetricsCsv(folder, step)]
    if "tensorboard" in asked:
        made.append(tensorboard_logger(folder, step))
    if "wandb" in asked:
        made.append(wandb_logger(folder, config, identity, step=step, earlier=earlier))
    return made


def _identity(run: Path, config: dict[str, Any]) -> dict[str, str]:
    """What W&B calls a run and its group: in a sweep what varies, and the sweep; else, twice, its name and its start.

    The group of a run by itself holds what goes on with it offline, and its evaluations.
    """
    cell = None
    with contextlib.suppress(ValueError):  # a file beside the run folder that is no sweep's
        cell = records.of(run)
    name = cell.name if cell else f"{config['name']} {run.name}"
    return {"name": name, "group": f"sweep {run.parent.name}" if cell else name}


def log_picture(loggers: Sequence[Logger], name: str, picture: Image, step: int) -> None:
    """To every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, WandB):
            logger.log_image(name, [picture], step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")


def log_by_t(loggers: Sequence[Logger], name: str, means: Sequence[float], T: int, step: int) -> None:
    """A histogram whose bars are `means_by_t`, over t, to every logger that takes histograms."""
    heights, edges = np.asarray(means), edges_of_t(T)
    for logger in loggers:
        if isinstance(logger, WandB):
            logger.log_histogram(name, heights, edges, step)
        elif isinstance(logger, TensorBoardLogger):
            drawn, middle = heights.clip(min=0), (edges[:-1] + edges[1:]) / 2
            moments = {"num": drawn.sum(), "sum": drawn @ middle, "sum_squares": drawn @ middle**2}
            logger.experiment.add_histogram_raw(
                name, edges[0], edges[-1], **moments, bucket_limits=edges[1:], bucket_counts=drawn, global_step=step
            )


def edges_of_t(T: int) -> Integers:
    """Of up to BINS bins of 1..T: the first t of each, and T + 1."""
    bins = min(BINS, T)
    return 1 + -(-np.arange(bins + 1) * T // bins)


def means_by_t(t: Tensor | Sequence[float], parts: Tensor | Sequence[float], T: int) -> list[float]:
    """The terms of a sum over t = 1..T, averaged in each bin of t; `t` says of which term each of the parts is."""
    edges = edges_of_t(T)
    sums, _ = np.histogram(np.asarray(t), edges, weights=np.asarray(parts, np.float64))
    means: list[float] = (sums / np.diff(edges)).tolist()
    return means


@contextlib.contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Enter in the loggers how the run ended, and send what they still hold.

    W&B takes exit code 0 for finished and others for failed. A run that was told to stop is neither: it is marked as
    preempted, which is what W&B calls one that may go on.
    """
    code = 0
    try:
        yield
    except BaseException as error:
        code = getattr(error, "code", 130 if isinstance(error, KeyboardInterrupt) else 1)
        raise
    finally:
        for logger in loggers:
            if isinstance(logger, WandB):
                logger.finish(code)
            else:
                logger.finalize("failed" if code else "success")


def how_to_look(loggers: Sequence[Logger]) -> list[str]:
    """What to type to see the run."""
    lines = []
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            lines.append(f"look at the run:           tensorboard --logdir {Path(logger.log_dir)}")
        if not isinstance(logger, WandB):
            continue
        run = logger.experiment
        if run.offline:
            folder = Path(run.dir).parent
            lines.append(f"look at the run (offline): wandb leet {folder}")
            lines.append(f"send it to W&B:            wandb sync {folder}")
        elif run.url:
            lines.append(f"W&B run: {run.url}")
    return lines


class MetricsCsv(Logger):
    """metrics.csv: a row per step, a column per metric, empty where a metric was not due; every row is flushed.

    A run that goes on from `step` keeps the rows up to there and writes the later ones anew.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._rows: list[Row] = []
        if step and self.path.exists():
            with self.path.open(newline="", errors="replace") as file:
                rows = [{column: text for column, text in row.items() if text} for row in csv.DictReader(file)]
            self._rows = [{**row, "step": int(row["step"])} for row in rows if row.get("step", "").isdigit()]
            self._rows = [row for row in self._rows if int(row["step"]) <= step]
            self._columns = list(dict.fromkeys(column for row in self._rows for column in row))
            self._rewrite()

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row: Row = {"step": step or 0, **metrics}
        new = [column for column in row if column not in self._columns]
        if (self._rows and self._rows[-1]["step"] == row["step"]) or new:
            if self._rows and self._rows[-1]["step"] == row["step"]:
                self._rows[-1] |= row
            else:
                self._rows.append(row)
            self._columns += new
            self._rewrite()
        else:
            self._rows.append(row)
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text.getvalue(), newline="")
        temporary.replace(self.path)


def tensorboard_logger(folder: Path, step: int = 0) -> TensorBoardLogger:
    """Event files in FOLDER/tensorboard; what an earlier start wrote there after `step` is no longer shown."""
    return TensorBoardLogger(folder, "tensorboard", "", purge_step=step + 1 if step else None)


class WandB(WandbLogger):
    """A run in W&B; `checkpoint` is the file that becomes an artifact at the end of training, if one is to.

    W&B is a process of its own, which may die. The run goes on without: metrics.csv has its numbers.
    """

    def __init__(self, run: Any, checkpoint: Path | None) -> None:
        super().__init__(experiment=run)
        self.checkpoint, self.lost = checkpoint, False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._send(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self._send(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def log_histogram(self, name: str, heights: Floats, edges: Integers, step: int) -> None:
        import wandb

        histogram = wandb.Histogram(np_histogram=(heights, edges))
        self._send(self.experiment.log, {name: histogram, STEP: step})

    def finish(self, code: int) -> None:
        """Enter how the run ended; see `closing`."""
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
            what = f"warning: W&B is gone ({type(error).__name__}: {error})"
            print(f"{what}; the run goes on, and metrics.csv has its numbers", file=sys.stderr, flush=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status != "success" or self.checkpoint is None or self.experiment.disabled:
            return
        import wandb

        kept = Path(self.experiment.dir).parent / self.checkpoint.name  # as it is now, for `wandb sync` later
        kept.unlink(missing_ok=True)
        os.link(self.checkpoint, kept)
        artifact = wandb.Artifact(f"model-{self.experiment.id}", "model")
        artifact.add_file(str(kept), policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact)


def wandb_logger(
    folder: Path, config: dict[str, Any], identity: dict[str, str], *, step: int = 0, earlier: Path | None = None
) -> WandB:
    """W&B into `folder`: online where a key is configured, offline where none is; WANDB_MODE wins.

    Args:
        step: what a training run goes on from.
        earlier: a run folder whose W&B run goes on here, where it is online and was. W&B cannot resume an offline run:
            going on with the training then makes a second one, which says what it continues.
    """
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    asked = dict(config["logger"]["wandb"] or {})
    checkpoint = folder / "checkpoints" / LAST if asked.pop("checkpoint", False) else None
    mode: Any = os.environ.get("WANDB_MODE", asked.pop("mode", None))
    mode = mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
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
        print(f"W&B cannot be reached, so the run is logged offline: {str(error).splitlines()[0]}", file=sys.stderr)
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
