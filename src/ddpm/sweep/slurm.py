"""A sweep's jobs in SLURM: what the queue says of them, and how they are made to end, saved.

Everything is asked of squeue, since many clusters keep no accounts that sacct could read.
"""

import contextlib
import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm.messages import say, warn
from ddpm.runs import records
from ddpm.sweep.engines import go_on_without

FOLDER = ".submitit"  # in the sweep's: of the launcher, which submits its scripts from there
ASK = 5.0  # seconds between two questions to SLURM
APPEAR = 30.0  # seconds within which a job that was submitted is in the queue
PATIENCE = 120.0  # seconds in which cells that are told to end may save
# What the signals mean that SLURM sends to a cell's job, or the sweep by it.
SIGNALS = {signal.SIGTERM: "its job was cancelled", signal.SIGUSR1: "the sweep was stopped"}
# How a cell ended that did not live to record it, by the state of its job. https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
OVER: dict[str, tuple[records.Status, str]] = {
    "FAILED": ("failed", "its job failed"),
    "BOOT_FAIL": ("failed", "its node failed"),
    "NODE_FAIL": ("failed", "its node failed"),
    "OUT_OF_MEMORY": ("failed", "its job ran out of memory"),
    "CANCELLED": ("interrupted", SIGNALS[signal.SIGTERM]),
    "DEADLINE": ("interrupted", "its job's deadline was over"),
    "PREEMPTED": ("interrupted", "its job made way for another"),
    "TIMEOUT": ("interrupted", "its job's time was up"),
    "GONE": ("failed", "its job is gone from SLURM's queue"),  # our word for those that squeue has forgotten
}


@dataclass(frozen=True)
class Job:
    """A job of a sweep: `id` is 12, or 12_3 in an array; `state` and `reason` are SLURM's words."""

    id: str
    state: str
    reason: str

    @property
    def over(self) -> bool:
        return self.state in OVER or self.state == "COMPLETED"


class Queue:
    """The jobs that were submitted from a sweep's folder, by id; those that SLURM has forgotten are over."""

    def __init__(self, sweep: Path) -> None:
        self._scripts, self._guard = (sweep / FOLDER).resolve(), threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._asked, self._complaint = -ASK, ""
        self._expected, self._earlier = list[str](), set[str]()

    def expect(self, cells: Sequence[str]) -> None:
        """Know the next jobs as those of these cells, in the order of the array that they become."""
        self._expected, self._earlier = list(cells), set(self.jobs(now=True))

    def job_of(self, cell: records.Cell) -> Job | None:
        """The job that runs a cell, or that was submitted for it."""
        jobs = self.jobs()
        return jobs.get(cell.job) or next((job for id, job in jobs.items() if self._name(id) == cell.folder.name), None)

    def waits(self) -> dict[str, str]:
        """Why jobs wait, in SLURM's words (Resources, Priority), by cell, or by job where its cell is unknown."""
        waiting = [job for job in self.jobs().values() if job.state == "PENDING" and job.reason != "None"]
        return {self._name(job.id) or f"job {job.id}": job.reason for job in waiting}

    def wait(self) -> None:
        """Wait until none of the jobs waits or runs."""
        while self.alive():
            time.sleep(1)

    def _name(self, id: str) -> str | None:
        place = int(id.partition("_")[2] or 0)
        return self._expected[place] if id not in self._earlier and place < len(self._expected) else None

    def jobs(self, *, now: bool = False) -> dict[str, Job]:
        """What SLURM said last; it is asked again every few seconds, or `now`."""
        with self._guard:
            if now or time.monotonic() - self._asked >= ASK:
                self._ask()
            return dict(self._jobs)

    def alive(self, *, now: bool = False) -> dict[str, Job]:
        """The jobs that wait or run."""
        return {id: job for id, job in self.jobs(now=now).items() if not job.over}

    def _ask(self) -> None:
        command = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}"]
        try:
            answer = subprocess.run(
                [*command, "--format=%i|%T|%r|%o"], capture_output=True, text=True, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:  # it may be restarted; until then the last answer holds
            complaint = str(getattr(error, "stderr", None) or error).strip()
            if complaint != self._complaint:
                warn(f"SLURM does not answer: {complaint}")
            self._complaint = complaint
        else:
            self._complaint = ""
            lines = [line.split("|", 3) for line in answer.stdout.splitlines()]
            told = [line for line in lines if len(line) == 4 and Path(line[3]).parent.resolve() == self._scripts]
            forgotten = {id: Job(id, "GONE" if not job.over else job.state, "") for id, job in self._jobs.items()}
            self._jobs = {**forgotten, **{id: Job(id, state, reason) for id, state, reason, _ in told}}
        self._asked = time.monotonic()


def own_job() -> str:
    """The id of the job in which this process runs."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def is_time_up(end: BaseException) -> bool:
    """Whether submitit raised this in a job whose time is up, and which it does not put into the queue again."""
    submitit = sys.modules.get("submitit.core.utils")  # there, if it raised anything
    return submitit is not None and isinstance(end, submitit.UncompletedJobError)


def prepare_launcher(queue: Queue, lost: float, settled: Callable[[Sequence[str]], bool]) -> None:
    """Let submitit ask squeue rather than the accounts, and go on when a job ends without a result.

    Args:
        lost: the value of such a job in a search.
        settled: whether a cell with these overrides has nothing left to run, and so needs no job.
    """
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    launch = SlurmLauncher.launch

    class Watcher(SlurmInfoWatcher):
        def update_if_long_enough(self, mode: str) -> None:
            pass

        def get_state(self, job_id: str, mode: str = "standard") -> str:
            job = queue.jobs().get(job_id)
            if job is None:
                return "GONE" if time.time() - self._start_time > APPEAR else "PENDING"
            return job.state if job.over else "RUNNING"

    def launch_unsettled(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        todo = [overrides for overrides in job_overrides if not settled(overrides)]
        return launch(launcher, todo, initial_job_idx) if todo else []

    SlurmJob.watcher, SlurmJob._results_timeout_s = Watcher(), 5
    go_on_without(SlurmJob, lost)
    SlurmLauncher.launch = launch_unsettled


def cancel(queue: Queue) -> None:
    """Take the sweep's jobs out of the queue and end those that run, which save first, within `PATIENCE`."""
    until, ids = time.monotonic() + PATIENCE, list(queue.alive(now=True))
    if not ids:
        return
    say(f"ending {len(ids)} jobs, which save first: {', '.join(ids)}", to=sys.stderr)
    while ids and time.monotonic() < until:
        _scancel("--state=PENDING", *ids)
        _scancel("--signal=USR1", *ids)  # again and again: a job that has just begun may not hear it
        for _ in range(5):
            time.sleep(1)
            if not (ids := list(queue.alive(now=True))):
                return
    _scancel(*ids)


def _scancel(*arguments: str) -> None:
    with contextlib.suppress(OSError):  # what is over by now is no error that matters
        subprocess.run(["scancel", *arguments], capture_output=True, timeout=60, check=False)
