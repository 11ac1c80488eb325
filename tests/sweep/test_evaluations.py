"""A sweep of evaluations: one checkpoint, measured in every combination of what varies."""

import csv
import json
import signal

import pytest
from commands import Fork
from random_checkpoint import saved
from torture import until

from ddpm.commands import evaluate, train
from ddpm.config.errors import RequestError
from ddpm.evaluation.results import Results
from ddpm.processes import RunFailedError
from ddpm.runs import records
from ddpm.sweep import sweep
from ddpm.sweep.work import WORKS

MEASURED = ["evaluation.metrics=[fid]", "logger=csv"]
AXES = ["sampler.steps=3,4,5", "evaluation.seed=0,1"]


def sweep_folder(where):
    return (where / "runs/sweeps/latest").resolve()


def rows(folder):
    with (folder / "report.csv").open() as file:
        return list(csv.DictReader(file))


def test_killed_and_gone_on_with_it_has_the_numbers_of_each_by_itself(run_folder, workspace):
    process = Fork("evaluate.py", "-m", "ckpt=run", *MEASURED, *AXES, cwd=workspace)
    assert until(lambda: "finished" in {cell.status for cell in records.within(sweep_folder(workspace))}, process)
    process.send(signal.SIGKILL)
    process.wait(-signal.SIGKILL)
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
    with pytest.raises(RequestError, match=r"another command: ddpm evaluate -m resume="):
        train.main(["-m", f"resume={workspace}"])
    records.write_plan(workspace, "train", ["seed=1,2"], ["seed"])
    with pytest.raises(RequestError, match=r"another command: ddpm train -m resume="):
        evaluate.main(["-m", f"resume={workspace}"])


def test_several_values_without_a_sweep_are_told_of_it(run_folder):
    with pytest.raises(RequestError, match="add -m to sweep over them"):
        evaluate.main(["ckpt=run", "sampler.steps=2,3"])


@pytest.fixture
def begun(workspace, monkeypatch):
    """A sweep of two finished evaluations, and a function that asks again and returns the cells that would run."""
    todo = []
    monkeypatch.setattr(sweep, "_launch", lambda request, folder, count, cells, queue: todo.extend(cells))
    small = ["network.channels=8", "network.groups=4", "schedule.T=20", "sampler.steps=4", "logger=csv"]

    def again(*words, gain=None):
        if gain:
            saved("a.ckpt", *small, gain=gain)
        todo.clear()
        sweep.carry_out(list(words), WORKS["evaluate"])
        return [cell.number for cell in todo]

    assert again("ckpt=a.ckpt", "evaluation.seed=0,1", "evaluation.metrics=[fid]", gain=1.0) == [0, 1]
    for cell in records.within(folder := sweep_folder(workspace)):
        cell.folder.mkdir()
        cell.status = "finished"
        cell.write()
    return folder, again


def test_a_sweep_goes_on_with_the_cells_that_have_no_results(begun):
    folder, again = begun
    assert again(f"resume={folder}") == []
    records.within(folder)[0].folder.rmdir()
    assert again(f"resume={folder}") == [0]


def test_a_checkpoint_that_has_moved_is_the_same(begun, workspace):
    folder, again = begun
    (workspace / "a.ckpt").rename("b.ckpt")
    own = ["ckpt=b.ckpt", "evaluation.metrics=[fid]", f"resume={folder}"]
    assert again(*own, "evaluation.seed=0,1,2") == [2]
    with pytest.raises(RequestError, match=r"no cell of .* has these settings"):
        again(*own, "evaluation.seed=7")


def test_a_plan_that_does_not_say_of_which_weights_it_is_goes_on_with_its_own_path_alone(begun, workspace):
    folder, again = begun
    records.write_plan(folder, "evaluate", records.plan(folder)["overrides"], ["evaluation.seed"])
    (workspace / "b.ckpt").write_bytes((workspace / "a.ckpt").read_bytes())
    words = ["evaluation.seed=0,1", "evaluation.metrics=[fid]", f"resume={folder}"]
    with pytest.raises(RequestError, match=r"b\.ckpt has other weights"):
        again("ckpt=b.ckpt", *words)
    assert again("ckpt=a.ckpt", *words) == []


def test_a_checkpoint_of_other_weights_is_another_sweep(begun):
    folder, again = begun
    with pytest.raises(RequestError, match=r"a\.ckpt has other weights than .* began to measure"):
        again(f"resume={folder}", gain=2.0)
    assert {cell.status for cell in records.within(folder)} == {"finished"}


def test_another_launcher_goes_on_without_the_settings_of_the_first(begun):
    folder, _ = begun
    own = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    records.write_plan(folder, "evaluate", ["ckpt=a.ckpt", "evaluation.seed=0,1", *own], ["evaluation.seed"])
    assert sweep._read([f"resume={folder}"], WORKS["evaluate"]).engines.settings == own
    request = sweep._read([f"resume={folder}", "hydra/launcher=submitit_local"], WORKS["evaluate"])
    assert (request.engines.launcher, "hydra.launcher.n_jobs=2" in request.engines.settings) == (
        "submitit_local",
        False,
    )


def test_an_evaluation_that_could_not_be_written_goes_on(run_folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "fid.png")

    words = ["ckpt=run", "out=o", *MEASURED]
    with monkeypatch.context() as patch:
        patch.setattr(Results, "write", full)
        with pytest.raises(RunFailedError, match=r"No space left on device: fid\.png; the same command goes on"):
            evaluate.evaluate(words)
    assert evaluate.evaluate(words).metrics["fid"]
    with pytest.raises(RequestError, match="not empty"):
        evaluate.evaluate(words)
