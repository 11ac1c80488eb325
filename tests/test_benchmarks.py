"""Every benchmark runs, at its smallest, and leaves a record that says what it was measured with."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT
from PIL import Image

COMMANDS = {
    "train_step": ["--toy", "--rounds", "1"],
    "sampling": ["--toy", "--rounds", "1"],
    "bound": ["--toy", "--rounds", "1"],
    "memory": ["--toy"],
    "startup": ["--toy"],
    "scaling": ["--toy", "--rounds", "1"],
    "data": ["--toy"],
    "gpu": ["--dry-run"],
    "photos": ["--toy"],
    "planted_faults": ["--toy"],
    "protocol_errors": ["--toy", "--seeds", "2"],
    "bound_variance": ["--toy", "--draws", "2", "--evaluations", "10"],
    "random_features": ["--toy", "pictures", "pictures"],
    "precision": ["--toy", "pictures", "--picture", "curves.png"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_leaves_a_record(workspace, name):
    draw = np.random.default_rng(0)
    for k in range(80):
        folder = workspace / "pictures"
        folder.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{k}.png")
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *COMMANDS[name], "--records", "records"]
    subprocess.run(command, cwd=workspace, check=True, timeout=600, env={**os.environ, "WANDB_MODE": "offline"})
    (file,) = (workspace / "records").iterdir()
    record = json.loads(file.read_text())
    assert f"benchmarks/{name}.py" in record["command"]
    assert {"command", "date", "versions", "hardware", "load average"} < record.keys()


def test_every_benchmark_is_tested():
    scripts = {file.stem for file in (ROOT / "benchmarks").glob("*.py")} - {"peers", "record"}
    assert scripts == COMMANDS.keys()
