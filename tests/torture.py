"""Runs watched, killed and compared bit by bit."""

import csv
import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from ddpm.diffusion.sampler import Ancestral

WALL_CLOCK = {"train/images_per_second", "train/data_wait"}


def metrics(folder):
    """step -> metrics, wall-clock columns aside."""
    with (folder / "metrics.csv").open() as file:
        return {
            int(row["step"]): {key: value for key, value in row.items() if key not in WALL_CLOCK and value}
            for row in csv.DictReader(file)
            if row["step"]
        }


def content(folder, name="last.ckpt"):
    loaded = torch.load(folder / "checkpoints" / name, weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "pending", "monitor")
    return {key: loaded[key] for key in kept if key in loaded}


def assert_same(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, path


def assert_same_run(folder, whole):
    for name in ("last.ckpt", "best.ckpt"):
        assert_same(content(folder, name), content(whole, name))
    assert metrics(folder) == metrics(whole)
    for kind in ("samples", "averages"):
        files = [{path.name: path.read_bytes() for path in (run / kind).glob("*")} for run in (folder, whole)]
        assert files[0] == files[1], kind


def until(happened, process, timeout=60, every=0.001):
    """Wait until `happened()`, or the end of the process. Whether it happened."""
    deadline = time.monotonic() + timeout
    while process.running and time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(every)
    assert time.monotonic() < deadline
    return False


def reached(folder, step):
    """Whether the run has logged this step. Asked a thousand times a second, it reads a file that has changed alone."""
    file, seen, last = folder / "metrics.csv", 0, 0

    def happened():
        nonlocal seen, last
        size = file.stat().st_size if file.exists() else 0
        if size != seen:
            seen, last = size, max(metrics(folder), default=0)
        return last >= step

    return happened


class LongStep(Callback):
    """The second micro-batch of the second step takes a minute, unless something ends it."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 3:
            time.sleep(60)


class Waiting(Ancestral):
    """Where the working directory has a file `wait`, a chain calls it `waits`, and goes on when that is gone."""

    def arrive(self, q, here):
        if (file := Path("wait")).exists():
            file = file.rename("waits")
            while file.exists():
                time.sleep(0.01)
        return here
