"""What README promises of the default run, over three seeds; a quarter of its steps must not reach it."""

import json
import re

import pytest
from commands import ROOT, run

PROMISE = re.search(
    r"FID at most ([\d.]+) times the floor and IS at least ([\d.]+) of the train split's",
    (ROOT / "README.md").read_text(),
)


def measured(cwd, *overrides):
    """FID as a multiple of FID(train, test), and IS as a share of the train split's."""
    run("train.py", "evaluate_after=true", "evaluation.metrics=[inception_score,fid]", "logger=csv", "out=run",
        *overrides, cwd=cwd, timeout=1800)  # fmt: skip
    results = json.loads((cwd / "run" / "results.json").read_text())
    fid, score = (
        results["metrics"][name]["value"] / results["real"][name]["value"] for name in ("fid", "inception_score")
    )
    return fid, score


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_default_run_keeps_the_promise(workspace, seed):
    fid, score = measured(workspace, f"seed={seed}")
    assert fid <= float(PROMISE[1])
    assert score >= float(PROMISE[2])


@pytest.mark.slow
def test_a_quarter_of_the_steps_does_not(workspace):
    fid, score = measured(workspace, "max_steps=700")
    assert fid > 1.2 * float(PROMISE[1])
    assert score < 0.97 * float(PROMISE[2])
