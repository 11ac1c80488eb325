"""The process in which a cell's run goes on, watched to its end.

It is forked from a server that has imported what every run imports, so that a cell starts at once rather than after
seconds. The server computes nothing, and ends with the process that started it.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO

# Variables that a launcher leaves in the environment and that would make a run believe it is a rank of another job.
OF_RANKS = (
    "LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID",
)  # fmt: skip
# What a scheduler sends to every process of a job. The server outlives it, since it hands on how a run has ended.
FROM_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# On macOS, a process that is forked after such imports may crash: there, each cell is an interpreter of its own.
_method = "forkserver" if sys.platform == "linux" else "spawn"
_processes: Any = multiprocessing.get_context(_method)
_processes.set_forkserver_preload(["ddpm.preloaded"])


def run(
    words: Sequence[str], own_gpus: Sequence[str], log: Path | None, ends: Mapping[signal.Signals, str] | None = None
) -> tuple[int, str]:
    """Run `python -m WORDS` in a process of its own, which ends, saved, when this one is told to end or dies.

    Args:
        own_gpus: those that it may see; all, if there are none.
        log: where it prints to, instead of to our own output.
        ends: signals that end that process, saved, but not this one, and what each of them means.

    Returns:
        Its exit code, negative for a signal that killed it, and its error message.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
    if own_gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus)
    multiprocessing.set_start_method(None, force=True)  # joblib's workers have one that the run must not inherit
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = _processes.Process(target=_main, args=(list(words), os.getcwd(), environment, log, writer))
    last = error = ""
    with (
        open(reader.fileno(), errors="replace", closefd=False) as printed,
        log.open("a") if log else contextlib.nullcontext(sys.stderr) as stderr,
        _handing_on(process, ends or {}) as told,
    ):
        with _environment(environment), _held_back(), _without_script():
            process.start()
        writer.close()
        if told:  # before there was a process to be told
            process.terminate()
        with _stopping(process, printed, stderr):
            for line in printed:
                stderr.write(line)
                stderr.flush()
                last = line.strip() or last
                error = line.strip() if line.startswith("error: ") else error
            process.join()
    assert process.exitcode is not None
    complaint = (error or last or "it ended without a word").removeprefix("error: ")
    if told:  # of what it printed, that it saved
        complaint = ": ".join([told[0], *([complaint.partition(";")[0]] if process.exitcode == 143 and last else [])])
    return process.exitcode, complaint


def _main(words: list[str], folder: str, environment: dict[str, str], log: Path | None, stderr: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(stderr.fileno(), 2)
    if log:
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
    for signum in FROM_SCHEDULERS:  # until the command has handlers of its own
        signal.signal(signum, lambda *_: sys.exit(143))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a launcher's, for the process that watches this one
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_SCHEDULERS)
    sys.argv = list(words)
    sys.modules.pop(f"{words[0]}.__main__", None)  # which `ddpm` itself was started by: runpy would warn
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)  # so that ranks are started by `python -m`, too


@contextlib.contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """Start the server, which may be done by the first cell, in the environment that is wanted."""
    own = dict(os.environ)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(own)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold back a scheduler's signals, as the processes that are started meanwhile go on to do."""
    resource_tracker.ensure_running()  # whose own start would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_SCHEDULERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Hide the script that started this process, which multiprocessing would run once more in each that is started."""
    own = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own


@contextlib.contextmanager
def _handing_on(process: BaseProcess, ends: Mapping[signal.Signals, str]) -> Iterator[list[str]]:
    """Meanwhile these signals end the given process instead of this one; yields what those that came mean."""
    told: list[str] = []

    def hand_on(signum: int, _: object) -> None:
        told.append(ends[signal.Signals(signum)])
        if process.pid is not None:
            process.terminate()

    before = {signum: signal.signal(signum, hand_on) for signum in ends}
    try:
        yield told
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _stopping(process: BaseProcess, printed: TextIO, stderr: TextIO) -> Iterator[None]:
    """If this process is told to end, end the given one, too, which saves a checkpoint first."""
    try:
        yield
    except BaseException:
        process.terminate()
        with contextlib.suppress(KeyboardInterrupt):
            stderr.write(printed.read())
            process.join()
        raise


def death(code: int) -> str:
    """The signal by which a process died, in words."""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (": out of memory, perhaps" if -code == signal.SIGKILL else "")
