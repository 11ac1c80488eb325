"""Plant the faults of faults.py one at a time, and see whether the tests named for their file speak.

    python mutants/run.py [-j PROCESSES] [PART_OF_A_FILE_OR_A_FAULT ...]

A copy of the sources gets one fault after the other; a test run is a fork of this process, which has imported what the
tests need of other packages. Ends with exit code 1 where a fault survives that is not listed as equivalent (or one that
is listed does not), or where a test fails without a fault, which then judges none.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import faults
from faults import Fault

ROOT = Path(__file__).parents[1]
COPIED = (
    *("src", "conf", "tests", "scripts", "benchmarks", "fuzz", "docs"),
    *("train.py", "evaluate.py", "README.md", "pyproject.toml"),
)
IMPORTED = (
    *("torch", "lightning", "torchmetrics", "torch_fidelity", "torchvision", "omegaconf", "matplotlib.figure"),
    *("sklearn.datasets", "sklearn.model_selection", "PIL.Image", "rich.table", "safetensors.torch", "filelock"),
)
PASSED, FAILED, INTERRUPTED, BROKEN = (
    0,
    1,
    2,
    70,
)  # pytest's exit codes: the second also where a test module cannot be imported
PATIENCE = 4  # a run may take so many times what it took without a fault, and a minute


@dataclass
class Run:
    """Tests, at first without a fault, and how they ended."""

    tests: Sequence[str]
    fault: Fault | None = None
    code: int | None = None  # None where they were ended for taking too long
    seconds: float = 0.0
    printed: str = ""

    @property
    def caught(self) -> bool:
        return self.code in (FAILED, INTERRUPTED, None) or self.code < 0  # a crash


@dataclass
class Copy:
    """A copy of the sources, in which one run at a time takes place."""

    root: Path
    clock: int = field(default_factory=lambda: int(time.time()) - 10**6)

    def write(self, path: str, text: str) -> None:
        """A file of src/ddpm, newer or older than ever before by whole seconds, which is what a .pyc knows it by."""
        self.clock += 1
        file = self.root / "src/ddpm" / path
        file.write_text(text)
        os.utime(file, (self.clock, self.clock))


@functools.cache
def source(file: str) -> str:
    """The text of a file of src/ddpm, as it was at the start: somebody may be at work on it."""
    return (ROOT / "src/ddpm" / file).read_text()


def faulty(fault: Fault) -> str:
    """The file with the fault in it.

    Raises:
        SystemExit: what it replaces does not stand there exactly once.
    """
    text = source(fault.file)
    if (count := text.count(fault.old)) != 1:
        sys.exit(f"{fault.file} has {count} times, and should have once: {fault.old!r}")
    return text.replace(fault.old, fault.new)


def work(root: Path, tests: Sequence[str], log: Path) -> None:
    """Run tests in a copy, in this process, and end it with pytest's code."""
    os.setsid()
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.environ["PYTHONPATH"] = str(root / "src")
    sys.path[:0] = [str(root / "src")]
    os.chdir(root)
    import pytest

    sys.argv = ["pytest"]
    code: int = BROKEN
    try:
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *(f"tests/{test}" for test in tests)])
    finally:
        sys.stdout.flush()
        os._exit(code)


def carry_out(runs: Sequence[Run], copies: Sequence[Copy], limit: dict[str, float]) -> Iterator[Run]:
    """Each run as it ends, in one of the copies.

    Args:
        limit: seconds for each test file, where that is known.
    """
    fork = multiprocessing.get_context("fork")
    waiting, free = list(reversed(runs)), list(copies)
    at_work: dict[int, tuple[Run, Copy, multiprocessing.process.BaseProcess, float]] = {}
    while waiting or at_work:
        while waiting and free:
            run, copy = waiting.pop(), free.pop()
            if run.fault:
                copy.write(run.fault.file, faulty(run.fault))
            process = fork.Process(target=work, args=(copy.root, run.tests, copy.root / "log"))
            process.start()
            at_work[process.sentinel] = run, copy, process, time.monotonic()
        wait(list(at_work), timeout=1)
        for sentinel, (run, copy, process, begun) in list(at_work.items()):
            run.seconds = time.monotonic() - begun
            if process.is_alive():
                if run.seconds < 60 + PATIENCE * sum(limit.get(test, 300) for test in run.tests):
                    continue
            else:
                run.code = process.exitcode
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)  # it, and what it started
            process.join()
            run.printed = (copy.root / "log").read_text(errors="replace")
            if run.fault:
                copy.write(run.fault.file, source(run.fault.file))
            del at_work[sentinel]
            free.append(copy)
            yield run


def described(fault: Fault) -> str:
    """Where the fault is, and what it does."""
    text = source(fault.file)
    line = text[: text.index(fault.old)].count("\n") + 1
    old, new = (" ".join(part.split()) or "nothing" for part in (fault.old, fault.new))
    return f"{fault.file}:{line}: {old}  ->  {new}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-j", type=int, default=os.cpu_count(), help="processes (all cores)")
    parser.add_argument("parts", nargs="*", metavar="PART", help="only faults with this in their file or old text")
    asked = parser.parse_args()
    chosen = [
        each for each in faults.FAULTS if not asked.parts or any(part in each.file + each.old for part in asked.parts)
    ]
    for fault in faults.FAULTS:
        faulty(fault)
    os.environ.update(OMP_NUM_THREADS="1", WANDB_MODE="offline")
    for name in IMPORTED:
        __import__(name)
    with tempfile.TemporaryDirectory(prefix="mutants", ignore_cleanup_errors=True) as folder:
        copies = []
        for k in range(asked.j):
            for name in COPIED:
                source, target = ROOT / name, Path(folder, str(k), name)
                target.parent.mkdir(exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
                else:
                    shutil.copy2(source, target)
            copies.append(Copy(Path(folder, str(k))))
        return judged(chosen, copies)


def judged(chosen: Sequence[Fault], copies: Sequence[Copy]) -> int:
    """The exit code, after all has been printed."""
    begun, limit = time.monotonic(), dict[str, float]()
    named = dict.fromkeys(test for fault in chosen for test in fault.tests)
    survivors, wrong = [], []
    for run in carry_out([Run([test]) for test in named], copies, {}):
        if run.code == PASSED:
            limit[run.tests[0]] = run.seconds
        else:
            print(run.printed)
            wrong.append(f"tests/{run.tests[0]} fails without a fault")
    chosen = [fault for fault in chosen if all(test in limit for test in fault.tests)]
    print(f"{len(limit)} of {len(named)} test files pass without a fault; {len(chosen)} faults", flush=True)
    # The quickest tests come first, since the first that fails is the last.
    quickest = [Run(sorted(fault.tests, key=limit.__getitem__), fault) for fault in chosen]
    for run in carry_out(quickest, copies, limit):
        assert run.fault is not None
        if not run.caught and run.code != PASSED:
            print(run.printed)
            wrong.append(f"pytest could not run (exit code {run.code}): {described(run.fault)}")
        if not run.caught:
            survivors.append(run.fault)
        if run.caught and run.fault.equivalent:
            wrong.append(f"listed as equivalent, and caught: {described(run.fault)}")
        how = "SURVIVED" if not run.caught else "too long" if run.code is None else "caught"
        print(f"{how:8} {run.seconds:5.1f} s  {described(run.fault)}", flush=True)
    counted = [fault for fault in chosen if not fault.equivalent]
    missed = [fault for fault in survivors if not fault.equivalent]
    print(f"\n{len(counted) - len(missed)} of {len(counted)} caught in {time.monotonic() - begun:.0f} s")
    for fault in survivors:
        print(f"survived: {described(fault)}" + f" ({fault.equivalent})" * bool(fault.equivalent))
    print(*wrong, sep="\n")
    return int(bool(missed or wrong))


if __name__ == "__main__":
    sys.exit(main())
