"""The rank of this process by its environment, the errors that end a run, and ending with the launcher."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable


class RunFailedError(Exception):
    """A run that began cannot go on: one readable line, exit code 1."""


class StoppedError(Exception):
    """A signal ended the run, which is saved: one readable line, exit code 130 (Ctrl-C) or 143."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + (signum if signum == signal.SIGINT else signal.SIGTERM)


def is_rank_zero() -> bool:
    """Whether this process is rank 0 of the whole job, by its environment.

    Lightning's `rank_zero_only` would import torch.
    """
    for name in ("RANK", "SLURM_PROCID"):  # ranks of the whole job: torchrun's, SLURM's
        if (rank := _number_in(name)) is not None:
            return rank == 0
    # Lightning's own launcher numbers nodes, and the processes of each.
    return not _number_in("NODE_RANK") and not _number_in("LOCAL_RANK")


def _number_in(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None


def end_with_launcher() -> None:
    """Let a rank, or a sweep's run, end with the process that started it; the run saves first.

    Left alone, the rank would work on or wait for half an hour, and the run stand in the way of resuming the sweep.
    """
    parent = multiprocessing.parent_process()
    started = any(name in os.environ for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    if parent is None and (is_rank_zero() or not started):
        return

    def end() -> None:
        if is_rank_zero():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with contextlib.suppress(OSError):  # what it printed to may be gone as well
            print("the process that started this rank is gone: ending, too", file=sys.stderr, flush=True)
        os._exit(1)

    when_parent_is_gone(end)


def when_parent_is_gone(act: Callable[[], None]) -> None:
    """Call `act`, in a thread of its own, once the process that started this one has ended."""
    parent, number = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if parent is not None:
            parent.join()
        else:
            while os.getppid() == number:
                time.sleep(1)
        act()

    threading.Thread(target=watch, daemon=True, name="when parent is gone").start()
