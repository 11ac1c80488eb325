"""One run of a sweep: a process of its own, watched to its end, and its record. Whatever happens, the sweep goes on."""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ddpm.config.compose import compose
from ddpm.config.errors import RefusedError
from ddpm.config.grammar import as_typed
from ddpm.config.groups import CONF
from ddpm.metrics import registry
from ddpm.processes import STARTED_BY
from ddpm.runs import records
from ddpm.sweep import gpus

# What a launcher leaves in the environment, and what would make a run take itself for a rank of another job.
OF_RANKS = (
    "LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID",
)  # fmt: skip
# What a run does unless told otherwise: without numbers there is no table, and a whole bound costs more than it tells.
DEFAULTS = {"evaluate_after": "true", "evaluation.bits_per_dim.evaluations": "50"}
ENDS: dict[int, records.Status] = {0: "finished", 2: "refused", 130: "interrupted", 143: "interrupted"}


def compose_cell(overrides: Sequence[str]) -> DictConfig:
    """A run's configuration.

    Raises:
        RequestError: as `cli.compose`.
    """
    return compose(_with_defaults(overrides))


def metric(config: DictConfig) -> str | None:
    """What a search optimises: unless it is said, FID, or the bound where there is no FID."""
    measured = config.evaluation.metrics
    registered = registry.metrics()
    known = {name for m in measured for name in (registered[m].quantities if m in registered else (m,))}
    wish = config.optimized_metric or next((m for m in ("fid", "bits_per_dim", "bound_nats") if m in known), None)
    return wish if wish in known else None


def named(sweep: Path, number: int, overrides: list[str], varying: Sequence[str]) -> records.Cell:
    """A run's record, not yet written; its folder is numbered, and named after what varies."""
    own = [text for text in overrides if text.partition("=")[0].lstrip("+") in varying]
    slug = re.sub(r"[^\w.+-]+", "-", "_".join(own or overrides)).strip("-.")[:80]
    return records.Cell(sweep / f"{number:03d}_{slug or 'run'}", overrides, own)


def same(cell: records.Cell, overrides: Sequence[str]) -> bool:
    """Whether it is the run that these overrides ask for, in any order."""
    return sorted(cell.overrides) == sorted(overrides)


def run(_: DictConfig) -> float | None:
    """What Hydra's launcher calls, here or on another machine: the run with the overrides of Hydra's current job.

    Returns: what a search is to minimise, or maximise: the worst where nothing was measured.
    """
    job = HydraConfig.get()
    overrides, sweep = list(job.overrides.task), Path(job.sweep.dir)
    launcher, sweeper = (job.runtime.choices[f"hydra/{engine}"] for engine in ("launcher", "sweeper"))
    worst = -math.inf if "maximize" in str(job.sweeper.get("direction")) else math.inf
    cell = next((known for known in records.within(sweep) if same(known, overrides)), None)
    if cell is None:  # of a search: grids are planned ahead
        cell = named(sweep, int(job.job.num), overrides, records.plan(sweep)["varying"])
    try:
        config = compose_cell(overrides)
    except RefusedError as error:
        cell.status, cell.reason = "refused", str(error)
        cell.write()
        return worst if sweeper != "basic" else None
    if cell.status not in records.SETTLED:
        _execute(cell, config, alone=launcher == "basic", shares_gpus=launcher == "joblib")
    return _measured(cell, metric(config), worst) if sweeper != "basic" else None


def _execute(cell: records.Cell, config: DictConfig, *, alone: bool, shares_gpus: bool) -> None:
    """Run it to its end, however that comes, and record how it ended."""
    needed = gpus.needed(config) if shares_gpus and gpus.visible() else 0
    with gpus.borrowed(needed, cell.folder.parent / ".gpus") as own:
        begun, before = time.monotonic(), cell.seconds
        cell.status, cell.reason = "running", ""
        cell.write()
        if alone:
            print(f"\n{cell.folder.name}: {cell.name}", flush=True)
        try:
            code, complaint = _watch(_command(cell), own, None if alone else cell.log)
            cell.status = ENDS.get(code, "failed")
            cell.reason = "" if code == 0 else _death(code) if code < 0 else complaint
            if cell.status == "failed" and cell.reason.startswith("diverged at step"):
                cell.status = "diverged"
        except BaseException:
            cell.status, cell.reason = "interrupted", "the sweep was stopped"
            raise
        finally:
            cell.seconds = before + time.monotonic() - begun
            cell.write()
    if alone and cell.status != "finished":
        print(f"{cell.folder.name}: {cell.status}: {cell.reason}", flush=True)


def _command(cell: records.Cell) -> list[str]:
    """The same for a first start and for going on."""
    script = str(CONF.parent / "train.py")
    return [sys.executable, script, *as_typed(_with_defaults(cell.overrides)), f"out={cell.folder}", "resume=auto"]


def _watch(command: list[str], own_gpus: Sequence[str], log: Path | None) -> tuple[int, str]:
    """The exit code of a process and what it complained of; what it prints goes to the log, or on."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
    environment[STARTED_BY] = str(os.getpid())
    if own_gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus)
    with log.open("a") if log else contextlib.nullcontext() as out:
        stderr, last, error = out or sys.stderr, "", ""
        with subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process, _stopping(process):  # fmt: skip
            assert process.stderr is not None
            for line in process.stderr:
                stderr.write(line)
                stderr.flush()
                last = line.strip() or last
                error = line.strip() if line.startswith("error: ") else error
            process.wait()
    return process.returncode, (error or last or "it ended without a word").removeprefix("error: ")


@contextlib.contextmanager
def _stopping(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process, which saves, if this one is told to end."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        process.terminate()
        with contextlib.suppress(KeyboardInterrupt):
            sys.stderr.write(process.communicate()[1])
        raise


def _death(code: int) -> str:
    name = signal.Signals(-code).name
    return f"killed by {name}" + (": out of memory, perhaps" if -code == signal.SIGKILL else "")


def _measured(cell: records.Cell, metric: str | None, worst: float) -> float:
    try:
        value = json.loads((cell.folder / "results.json").read_text())["metrics"][metric]["value"]
        return float(value) if cell.status == "finished" and math.isfinite(value) else worst
    except (OSError, ValueError, KeyError, TypeError):
        return worst


def _with_defaults(overrides: Sequence[str]) -> list[str]:
    said = {text.partition("=")[0].lstrip("+") for text in overrides}
    return [*overrides, *(f"{key}={value}" for key, value in DEFAULTS.items() if key not in said)]
