"""`-m`: a grid of runs, each a process of its own, ending in one report. Never imports torch.

Hydra expands the grid and launches the jobs; a job is a plain run of the same script with `out=` its cell's folder. So
a cell may itself be a DDP run, may fail, and leaves nothing behind in the next one. A cell never raises here: it leaves
cell.json, with its status and reason, and the sweep goes on.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from ddpm import cells, cli, report, runs

# What a launcher leaves in the environment, and what would make a cell take itself for a rank of another job.
DISTRIBUTED = (
    "LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED",
)  # fmt: skip
# What a cell does unless told otherwise: without numbers there is no table, and a whole bound costs more than it tells.
ENDS: dict[int, cells.Status] = {0: "finished", 2: "refused", 130: "interrupted", 143: "interrupted"}
DEFAULTS = {"evaluate_after": "true", "evaluation.bits_per_dim.evaluations": "50"}


def run(overrides: Sequence[str]) -> int:
    """Check the whole grid, run its cells, write the report.

    Returns: the exit code: 1 if a cell failed.

    Raises:
        RequestError: a cell's overrides are wrong, the grid is empty, or every cell of it is refused.
    """
    grid = expand(overrides)
    if any(override.startswith("out=") for override in overrides):
        raise cli.RequestError("out= names one run's folder: a sweep makes its own under runs/sweeps")
    if any(override.startswith("resume=") for override in overrides):
        raise cli.RequestError("resume= goes on with one run: leave -m away, and name a cell's folder")
    refused = [reason for cell in grid if (reason := _refusal(cell))]
    if len(refused) == len(grid):
        raise cli.RequestError(f"every cell of this sweep is refused; the first: {refused[0]}")
    with cli.request():
        folder = runs.create(runs.ROOT / "sweeps")
    runs.link_latest(folder, runs.ROOT / "sweeps" / "latest")
    print(f"sweep of {len(grid)} cells in {folder}", flush=True)
    try:
        quoted = str(folder).replace("'", "\\'")
        cli.hydra_main(_cell, ["-m", *overrides, f"hydra.sweep.dir='{quoted}'"])
    finally:
        rows = report.write(folder)
        print(f"report: {folder / 'report.html'}", flush=True)
    return int(any(row.status == "failed" for row in rows))


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every cell, in Hydra's order.

    Raises:
        RequestError: an axis or value that does not exist, or a glob or list that matches nothing.
    """
    parsed = cli.parse(overrides)
    with cli.hydra_context():
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        axes = parser.parse_overrides(list(overrides))
        for override, axis in zip(parsed, axes, strict=True):
            if axis.is_discrete_sweep() and not list(axis.sweep_string_iterator()):
                raise cli.RequestError(f"{override.input_line} matches nothing: there would be no run")
        grid = [cell for batch in BasicSweeper.split_arguments(axes, max_batch_size=None) for cell in batch]
    if not grid:
        raise cli.RequestError("the sweep has no cells")
    return [list(cell) for cell in grid]


def with_defaults(cell: Sequence[str]) -> list[str]:
    """A cell's overrides, and what it does not say of DEFAULTS."""
    said = {override.partition("=")[0].lstrip("+") for override in cell}
    return [*cell, *(f"{key}={value}" for key, value in DEFAULTS.items() if key not in said)]


def _refusal(cell: list[str]) -> str | None:
    try:
        cli.compose(with_defaults(cell))
    except cli.RefusedError as error:
        return str(error)
    return None


def _cell(_: DictConfig) -> None:
    """One job of Hydra's launcher: a process of its own, watched to its end."""
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    sweep = Path(job.sweep.dir)
    varying = [o for o in overrides if not o.startswith("hydra")]
    slug = re.sub(r"[^\w.+-]+", "-", "_".join(varying)).strip("-")[:80]
    cell = cells.Cell(sweep / f"{int(job.job.num):03d}_{slug or 'run'}", overrides, varying)
    print(f"\n[{job.job.num}] {' '.join(overrides)}", flush=True)
    start = time.monotonic()
    if reason := _refusal(overrides):
        cell.status, cell.reason = "refused", reason
    else:
        cell.status = "running"
        cell.write()  # the run's loggers read what it is called
        command = [sys.executable, os.path.abspath(sys.argv[0]), *with_defaults(overrides), f"out={cell.folder}"]
        try:
            code, cell.reason = _watch(command)
            cell.status = ENDS.get(code, "failed")
        except BaseException:
            cell.status = "interrupted"
            cell.write()
            raise
    cell.seconds = time.monotonic() - start
    cell.write()
    if cell.status != "finished":
        print(f"[{job.job.num}] {cell.status}: {cell.reason}", flush=True)


def _watch(command: list[str]) -> tuple[int, str]:
    """Run a cell, pass its output through, and return its exit code and the last thing that it complained of."""
    environment = {name: value for name, value in os.environ.items() if name not in DISTRIBUTED}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        last = ""
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
        except (KeyboardInterrupt, SystemExit) as stop:  # of the sweep, and so of its cell, which saves first
            if isinstance(stop, SystemExit):
                process.terminate()
            sys.stderr.write(process.stderr.read())
            raise
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
    return process.returncode, "" if process.returncode == 0 else last.removeprefix("error: ")
