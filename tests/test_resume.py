"""A run that is killed, stopped or starved at any moment and goes on is, to the bit, the run that was left alone."""

import csv
import random
import signal
import socket
import time

import numpy as np
import pytest
import torch
from commands import Fork
from PIL import Image

SETTINGS = [
    "data=folder", "data.path=pictures", "data.size=[8,8]", "data.channels=1", "data.horizontal_flip=true",
    "data.batch_size=16", "network.channels=8", "network.groups=4", "network.dropout=0.1", "schedule.T=20",
    "timesteps=loss_second_moment", "+timesteps.history=2", "sampler.steps=5", "max_steps=30", "logger=csv",
    "every={log: 1, validation: 5, samples: 10, checkpoint: 3}",
]  # fmt: skip
WALL_CLOCK = {"train/images_per_second", "train/data_wait"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with pictures to train on: 40 of them, so that an epoch is two and a half steps."""
    cwd = tmp_path_factory.mktemp("user")
    draw = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 8)):
        folder = cwd / "pictures" / split
        folder.mkdir(parents=True)
        for i in range(n):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    return cwd


@pytest.fixture(scope="module")
def whole(workplace):
    """The run that was left alone."""
    Fork("train.py", *SETTINGS, "out=whole", cwd=workplace).wait()
    return workplace / "whole"


def metrics(folder):
    """step -> metrics, wall-clock columns aside."""
    with (folder / "metrics.csv").open() as file:
        return {
            int(row["step"]): {key: value for key, value in row.items() if key not in WALL_CLOCK and value}
            for row in csv.DictReader(file)
            if row["step"]
        }


def content(folder):
    loaded = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {key: loaded[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "pending")}


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
    assert_same(content(folder), content(whole))
    assert metrics(folder) == metrics(whole)
    pictures = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (folder, whole)]
    assert pictures[0] == pictures[1]


def until(happened, process, timeout=60):
    """Wait until `happened()`, or the end of the process. Whether it happened."""
    deadline = time.monotonic() + timeout
    while process.running and time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.001)
    assert time.monotonic() < deadline
    return False


def reached(folder, step):
    return lambda: (folder / "metrics.csv").exists() and max(metrics(folder), default=0) >= step


def torture(workplace, whole, name, kills, seed):
    """Kill the run at `kills` moments: just begun, at a step, while validating or drawing, while saving."""
    folder, dice, done = workplace / name, random.Random(seed), 0
    steps = sorted(dice.randint(1, 29) for _ in range(kills))
    for number, step in enumerate(steps):
        process = Fork("train.py", *SETTINGS, f"out={name}", "resume=auto", cwd=workplace)
        moment = ("step", "saving", "validating", "beginning")[number % 4]
        if moment == "beginning":
            time.sleep(dice.uniform(0.1, 1.0))
        elif moment == "saving":
            until(lambda: reached(folder, step)() and (folder / "checkpoints" / "new.ckpt").exists(), process)
        elif moment == "validating":
            until(reached(folder, min(29, -(-step // 5) * 5)), process)
            time.sleep(dice.uniform(0, 0.02))
        else:
            until(reached(folder, step), process)
            time.sleep(dice.uniform(0, 0.1))
        if process.running:
            process.send(signal.SIGKILL)
            process.wait(-signal.SIGKILL)
            done += 1
    Fork("train.py", *SETTINGS, f"out={name}", "resume=auto", cwd=workplace).wait()
    assert_same_run(folder, whole)
    return done


def test_killed_five_times_it_is_the_same_run(workplace, whole):
    assert torture(workplace, whole, "killed", kills=5, seed=1) == 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_twenty_times_it_is_the_same_run(workplace, whole, seed):
    assert torture(workplace, whole, f"killed_{seed}", kills=20, seed=seed) >= 18
