"""One cell of a sweep: it is composed and run, and its record says how that ended.

However a run ends, the sweep goes on.
"""

import json
import math
import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ddpm.config.errors import RefusedError
from ddpm.messages import say
from ddpm.metrics import registry
from ddpm.runs import folders, records
from ddpm.sweep import gpus, local, process, slurm
from ddpm.sweep.work import WORKS, Work

STATUS_OF_EXIT_CODE: dict[int, records.Status] = {
    0: "finished",
    2: "refused",
    130: "interrupted",
    143: "interrupted",
    -signal.SIGINT: "interrupted",
    -signal.SIGTERM: "interrupted",
}
REQUEUED = {"submitit_slurm": (-1, 144), "submitit_local": (144,)}  # how submitit ends a process whose job starts again
POLL = 1.0  # seconds between two looks at a lock
LONGEST = 80  # letters of a folder's name, after its number


def metric(config: DictConfig) -> str | None:
    """The metric that a search optimises, None if it is not measured: by default FID, or the bound without FID."""
    measured = config.evaluation.metrics
    registered = registry.metrics()
    known = {name for m in measured for name in (registered[m].quantities if m in registered else (m,))}
    wish = config.optimized_metric or next((m for m in ("fid", "bits_per_dim", "bound_nats") if m in known), None)
    return wish if wish in known else None


def named(sweep: Path, number: int, overrides: list[str], varying: Sequence[str]) -> records.Cell:
    """A new record, not yet written, for a cell whose run folder is named by a number and by what varies."""
    own = [text for text in overrides if text.partition("=")[0].lstrip("+") in varying]
    slug = ""
    for text in own or overrides:  # as many whole settings as fit: half a number would be another one
        word = re.sub(r"[^\w.+-]+", "-", text).strip("-.")
        if slug and len(f"{slug}_{word}") > LONGEST:
            break
        slug = (f"{slug}_{word}" if slug else word)[:LONGEST]
    return records.Cell(sweep / f"{number:03d}_{slug or 'run'}", overrides, own)


def same(cell: records.Cell, overrides: Sequence[str]) -> bool:
    """Whether the cell has these overrides, in any order; the checkpoint of evaluations may have moved."""
    mine, others = (
        sorted(text for text in each if not text.startswith("ckpt=")) for each in (cell.overrides, overrides)
    )
    return mine == others


def address(*cells: records.Cell) -> str:
    """The override, an axis if there are several, that names cells by their numbers.

    Hydra composes the words of a job over conf/train.yaml. Those of an evaluation belong to its checkpoint's
    configuration, which Hydra does not know; so it is given the cell's number, and `run` looks the words up.
    """
    return f"+cell={','.join(str(cell.number) for cell in cells)}"


def addressed(overrides: Sequence[str], cell: records.Cell) -> bool:
    """Whether Hydra's job with these overrides is this cell's."""
    return same(cell, overrides) or list(overrides) == [address(cell)]


def run(_: DictConfig) -> float | None:
    """Run the cell of Hydra's current job; Hydra's launcher calls this, perhaps on another machine.

    The job has the overrides of the cell or, where those would not do for Hydra, `+cell=` and its number.

    Returns:
        The number that a search optimises, the worst possible one where nothing was measured; None for a grid.
    """
    job = HydraConfig.get()
    overrides, sweep = list(job.overrides.task), Path(job.sweep.dir)
    launcher, sweeper = (job.runtime.choices[f"hydra/{engine}"] for engine in ("launcher", "sweeper"))
    worst = -math.inf if "maximize" in str(job.sweeper.get("direction")) else math.inf
    work = WORKS[records.command(sweep)]
    cell = next((known for known in records.within(sweep) if addressed(overrides, known)), None)
    if cell is None:  # in a search, which chooses cells as it goes; a grid's are all recorded beforehand
        cell = named(sweep, int(job.job.num), overrides, records.plan(sweep)["varying"])
    try:
        config = work.compose(cell.overrides)
    except RefusedError as error:
        cell.status, cell.reason = "refused", str(error)
        cell.write()
        return worst if sweeper != "basic" else None
    cell = _when_free(cell)
    if cell.status not in records.SETTLED:
        cell.job = slurm.own_job() if launcher == "submitit_slurm" else ""
        ends = {"submitit_slurm": slurm.SIGNALS, "submitit_local": local.SIGNALS}.get(launcher, {})
        if launcher == "submitit_local":
            local.end_with_controller()
        requeued = REQUEUED.get(launcher, ())
        _execute(cell, work, config, ends, requeued, alone=launcher == "basic", shares_gpus=launcher == "joblib")
    return _measured(cell, metric(config), worst) if sweeper != "basic" else None


def _when_free(cell: records.Cell) -> records.Cell:
    """The cell, as its record is once no process is at work in its folder: an earlier start's may still be."""
    if folders.is_locked(cell.folder):
        say(f"{cell.folder.name}: another process is at work in its folder: waiting for its end")
        while folders.is_locked(cell.folder):
            time.sleep(POLL)
        time.sleep(POLL)  # the process that watched it writes the record
    return records.of(cell.folder) or cell


def _execute(
    cell: records.Cell,
    work: Work,
    config: DictConfig,
    ends: Mapping[signal.Signals, str],
    requeued: Sequence[int],
    *,
    alone: bool,
    shares_gpus: bool,
) -> None:
    """Run the cell until it ends in any way, and record how it ended."""
    needed = gpus.needed(config) if shares_gpus and gpus.visible() else 0
    with gpus.borrowed(needed, cell.folder.parent / ".gpus") as own:
        begun, before = time.monotonic(), cell.seconds
        cell.status, cell.reason = "running", ""
        cell.write()
        if alone:
            say(f"\n{cell.folder.name}: {cell.name}")
        try:
            code, complaint = process.run(work.words(cell), own, None if alone else cell.log, ends)
            cell.status = STATUS_OF_EXIT_CODE.get(code, "failed")
            cell.reason = "" if code == 0 else process.death(code) if code < 0 else complaint
            if cell.status == "failed" and cell.reason.startswith("diverged at step"):
                cell.status = "diverged"
        except BaseException as end:
            cell.status, cell.reason = _interrupted(end, requeued)
            if not slurm.is_time_up(end):
                raise
        finally:
            cell.seconds = before + time.monotonic() - begun
            cell.write()
    if alone and cell.status != "finished":
        say(f"{cell.folder.name}: {cell.status}: {cell.reason}")


def _interrupted(end: BaseException, requeued: Sequence[int]) -> tuple[records.Status, str]:
    if slurm.is_time_up(end):
        return "interrupted", "its job's time was up: hydra.launcher.timeout_min=, and max_num_timeout= times more"
    if isinstance(end, SystemExit) and end.code in requeued:
        return "waiting", "its job's time was up: it is in the queue again"
    return "interrupted", "the sweep was stopped"


def _measured(cell: records.Cell, metric: str | None, worst: float) -> float:
    try:
        value = json.loads((cell.folder / "results.json").read_text())["metrics"][metric]["value"]
        return float(value) if cell.status == "finished" and math.isfinite(value) else worst
    except (OSError, ValueError, KeyError, TypeError):
        return worst
