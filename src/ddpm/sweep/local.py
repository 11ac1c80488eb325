"""A sweep's jobs on this machine by submitit, which would outlive the sweep: they are made to end, saved."""

import contextlib
import os
import signal
import time
from pathlib import Path

from ddpm.processes import when_parent_is_gone

FOLDER = ".submitit"  # in the sweep's: of the launcher, with a folder for each job, named by its process
SIGNALS = {signal.SIGTERM: "the sweep was stopped"}
PATIENCE = 120.0  # seconds in which cells that are told to end may save
AGAIN = 5.0  # seconds between two signals: a job that has just begun may not hear the first


def end(sweep: Path) -> None:
    """End the jobs that this process has started for a sweep and that still run, within `PATIENCE`."""
    until = time.monotonic() + PATIENCE
    running = [int(folder.name) for folder in (sweep / FOLDER).glob("[0-9]*")]
    while running := [pid for pid in running if _runs(pid)]:
        last = time.monotonic() >= until
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if last else signal.SIGTERM)
        if last:
            return
        again = time.monotonic() + AGAIN
        while time.monotonic() < again and any(map(_runs, running)):
            time.sleep(0.2)


def end_with_controller() -> None:
    """Let this process, in which a cell's run is watched, end with the submitit process that controls its job."""
    when_parent_is_gone(lambda: os.kill(os.getpid(), signal.SIGTERM))


def _runs(pid: int) -> bool:
    """Whether a process is a child of this one and has not ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False
