"""A sweep of evaluations: one checkpoint, measured in every combination of what varies."""

import csv
import json
import signal

import pytest
from commands import Fork
from torture import until

from ddpm.commands import evaluate, train
from ddpm.config.errors import RequestError
from ddpm.runs import records

MEASURED = ["evaluation.metrics=[fid]", "logger=csv"]
AXES = ["sampler.steps=3,4,5", "evaluation.seed=0,1"]


def sweep_folder(where):
    return (where / "runs/sweeps/latest").resolve()


def rows(folder):
    with (folder / "report.csv").open() as file:
        return list(csv.DictReader(file))


def test_killed_and_gone_on_with_it_has_the_numbers_of_each_by_itself(run_folder, workspace):
    sweep = Fork("evaluate.py", "-m", "ckpt=run", *MEASURED, *AXES, cwd=workspace)
    assert until(lambda: "finished" in {cell.status for cell in records.within(sweep_folder(workspace))}, sweep)
    sweep.send(signal.SIGKILL)
    sweep.wait(-signal.SIGKILL)
    folder = sweep_folder(workspace)
    (workspace / "elsewhere").mkdir()
    printed = Fork("evaluate.py", "-m", f"resume={folder}", cwd=workspace / "elsewhere").wait()
    assert "sweep of 6 cells" in printed
    assert " to run" in printed
    found = records.within(folder)
    assert [cell.status for cell in found] == ["finished"] * 6
    for row, cell in zip(rows(folder), found, strict=True):
        assert [f"{key}={row[key]}" for key in ("sampler.steps", "evaluation.seed")] == cell.varying
        assert float(row["FID"]) == pytest.approx(
            json.loads((cell.folder / "results.json").read_text())["metrics"]["fid"]["value"], rel=1e-3
        )
    evaluate.evaluate(["ckpt=run", *MEASURED, "sampler.steps=4", "evaluation.seed=1", "out=alone"])
    alone, swept = (
        json.loads((place / "results.json").read_text()) for place in (workspace / "alone", found[3].folder)
    )
    assert found[3].varying == ["sampler.steps=4", "evaluation.seed=1"]
    assert swept["metrics"] == alone["metrics"]
    assert swept["protocol"] == alone["protocol"]
    page = (folder / "report.html").read_text()
    assert "3 configurations" in page
    assert "FID over sampler.steps" in page


def test_what_cannot_be_is_a_row_with_its_reason(run_folder, workspace):
    command = ["-m", "ckpt=run", *MEASURED, "guidance=none,cfg"]
    assert evaluate.main(command) == 0
    fine, refused = records.within(sweep_folder(workspace))
    assert (fine.status, refused.status) == ("finished", "refused")
    assert "condition" in refused.reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler.steps=2,3"], "ckpt= is missing"),
        (["ckpt=nowhere", "sampler.steps=2,3"], "does not exist"),
        (["ckpt=run", "sampler.steps=2,x"], "whole number"),
        (["ckpt=run", "optimizer.lr=1,2"], "cannot change after training"),
        (["ckpt=run", "sampler.steps=2,3", "figures=[samples]"], "leave -m or figures= away"),
        (["ckpt=run", "sampler.steps=interval(2,5)", "hydra/sweeper=optuna"], "swept in a grid"),
        (["ckpt=run", "sampler.steps=2,3", "out=there"], "out= names one run's folder"),
        (["resume=run"], "it is one run"),
    ],
)
def test_a_wrong_request_writes_nothing(run_folder, workspace, words, message):
    before = sorted(workspace.rglob("*"))
    with pytest.raises(RequestError, match=message):
        evaluate.main(["-m", *words])
    assert sorted(workspace.rglob("*")) == before


def test_each_command_goes_on_with_its_own_sweeps(workspace):
    records.write_plan(workspace, "evaluate", ["ckpt='run'", "sampler.steps=2,3"], ["sampler.steps"])
    with pytest.raises(RequestError, match=r"another command: python evaluate.py -m resume="):
        train.main(["-m", f"resume={workspace}"])
    records.write_plan(workspace, "train", ["seed=1,2"], ["seed"])
    with pytest.raises(RequestError, match=r"another command: python train.py -m resume="):
        evaluate.main(["-m", f"resume={workspace}"])


def test_several_values_without_a_sweep_are_told_of_it(run_folder):
    with pytest.raises(RequestError, match="add -m to sweep over them"):
        evaluate.main(["ckpt=run", "sampler.steps=2,3"])
