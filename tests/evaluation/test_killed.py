"""An evaluation that is killed at any moment goes on and ends in the numbers of one that was left alone."""

import json
import random
import signal

import pytest
from commands import SMALL, Fork
from torture import until

SETTINGS = ["ckpt=run", "evaluation.num_samples=60", "evaluation.chunk=4", "evaluation.bits_per_dim.images=30"]
CHUNKS = 15 + 8


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with a finished run and its evaluation."""
    cwd = tmp_path_factory.mktemp("user")
    Fork("train.py", *SMALL, "schedule.T=60", "out=run", cwd=cwd).wait()
    Fork("evaluate.py", *SETTINGS, "out=whole", cwd=cwd).wait()
    return cwd


def killed_again_and_again(cwd, name, kills, seed):
    """Kill it after so many of its chunks are kept, anywhere within the next. Returns how often that was in time."""
    dice, done = random.Random(seed), 0
    for kept in sorted(dice.randint(0, CHUNKS - 1) for _ in range(kills)):
        process = Fork("evaluate.py", *SETTINGS, f"out={name}", cwd=cwd)
        if until(lambda kept=kept: len(list((cwd / name).rglob("*.npy"))) >= kept, process):
            process.process.join(dice.uniform(0, 0.1))
        if process.running:
            process.send(signal.SIGKILL)
            process.wait(-signal.SIGKILL)
            done += 1
    printed = Fork("evaluate.py", *SETTINGS, f"out={name}", cwd=cwd).wait()
    assert "are done already" in printed
    ours, whole = (json.loads((cwd / folder / "results.json").read_text()) for folder in (name, "whole"))
    for part in ("metrics", "real", "protocol"):
        assert ours[part] == whole[part]
    for file in ("bound.csv", "samples.png", "rate_distortion.csv"):
        assert (cwd / name / file).read_bytes() == (cwd / "whole" / file).read_bytes()
    assert not (cwd / name / ".unfinished").exists()
    return done


@pytest.mark.slow
def test_killed_five_times_it_is_the_same_evaluation(workplace):
    assert killed_again_and_again(workplace, "killed", kills=5, seed=1) >= 4


@pytest.mark.slow
def test_killed_twenty_times_it_is_the_same_evaluation(workplace):
    assert killed_again_and_again(workplace, "killed again", kills=20, seed=2) >= 16
