"""The GPUs of one machine, shared out among cells that run at the same time."""

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

POLL = 0.5  # seconds


def visible() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES; empty without GPUs."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in named.split(",")]
        return list(itertools.takewhile(_names_a_gpu, names))  # CUDA sees those before the first that is none
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(k) for k, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def _names_a_gpu(name: str) -> bool:
    return name.isdecimal() or name.startswith(("GPU-", "MIG-"))


def needed(config: DictConfig) -> int:
    """How many GPUs a run takes; `devices=auto` takes one and leaves the rest to other runs."""
    hardware = config.trainer
    if hardware.accelerator == "cpu":
        return 0
    devices = hardware.devices
    if isinstance(devices, int):
        return max(1, devices)
    return len(devices) if not isinstance(devices, str) else 1


@contextlib.contextmanager
def borrowed(count: int, folder: Path) -> Iterator[list[str]]:
    """Hold `count` of the visible GPUs, waiting until they are free; no other run with the same `folder` gets them.

    Runs collect their GPUs one after the other, so that two never wait for what the other holds.
    """
    if not count:
        yield []
        return
    folder.mkdir(exist_ok=True)
    names, held = visible(), dict[str, FileLock]()
    assert count <= len(names), "checked before the sweep began"
    try:
        with FileLock(folder / "queue"):
            while len(held) < count:
                for name in names:
                    lock = FileLock(folder / name.replace("/", "-"))
                    if name not in held and len(held) < count:
                        with contextlib.suppress(Timeout):
                            lock.acquire(0)
                            held[name] = lock
                if len(held) < count:
                    time.sleep(POLL)
        yield list(held)
    finally:
        for lock in held.values():
            lock.release()
