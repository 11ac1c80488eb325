"""Launchers that run cells at the same time, and a sweeper that searches: real sweeps by Hydra's plugins."""

import csv
import math
import os

import pytest
import yaml
from commands import SMALL, Fork, run_anew

from ddpm.config.errors import RequestError
from ddpm.runs import records
from ddpm.sweep import engines


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], ["hydra/launcher=submitit_local"]],
)
def test_cells_at_the_same_time(tmp_path, launcher):
    """Each keeps what it printed to itself; the sweep tells how they go and waits for all."""
    lr = "optimizer.lr=0.001,1e+30"
    command = ["-m", *SMALL, "evaluate_after=false", "optimizer.warmup=0", lr, *launcher]
    printed = run_anew("train.py", *command, cwd=tmp_path, code=1).stdout
    fine, wild = records.within(tmp_path / "runs/sweeps/latest")
    assert (fine.status, wild.status) == ("finished", "diverged")
    assert f"{fine.folder.name}: finished" in printed
    assert f"{wild.folder.name}: diverged: diverged at step 2" in printed
    assert "training 6/6" in fine.log.read_text()
    assert "training 6/6" not in printed
    assert wild.reason in wild.log.read_text()
    assert (fine.folder / "checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_a_search_minimises_a_metric_and_is_repeated_when_it_goes_on(tmp_path):
    command = ["-m", *SMALL, "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1"]
    axis = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
    Fork("train.py", *command, axis, "hydra.sweeper.n_trials=2", cwd=tmp_path).wait(timeout=300)
    folder = (tmp_path / "runs/sweeps/latest").resolve()
    first = records.within(folder)
    assert [cell.status for cell in first] == ["finished", "finished"]

    Fork("train.py", "-m", f"resume={folder}", "hydra.sweeper.n_trials=3", cwd=tmp_path).wait(timeout=300)
    after = records.within(folder)
    assert after[:2] == first  # neither ran again
    assert len(after) == 3
    with (folder / "report.csv").open() as file:
        fid = {float(row["optimizer.lr"]): float(row["FID"]) for row in csv.DictReader(file)}
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == min(fid.values())
    assert fid[best["best_params"]["optimizer.lr"]] == best["best_value"]


def test_cells_on_the_same_cores_share_them(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    for settings, cells_, threads in (
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], 10, "4"),
        (["hydra/launcher=joblib"], 100, "1"),
        (["hydra/launcher=joblib"], 2, "6"),
        ([], 2, None),
    ):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        own, rest = engines.of(["seed=1,2", *settings])
        own.prepare(cells_)
        assert os.environ.get("OMP_NUM_THREADS") == threads
        assert rest == ["seed=1,2"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    engines.of(["hydra/launcher=joblib"])[0].prepare(2)
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("said", ["maximize", "'maximize'", '"maximize"'])
def test_a_direction_in_quotes_is_the_same(said):
    own, _ = engines.of(["seed=1,2", "hydra/sweeper=optuna", f"hydra.sweeper.direction={said}"])
    assert own.worst == -math.inf


def test_a_plugin_that_is_not_installed_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for engine in ("hydra/launcher=joblib", "hydra/sweeper=optuna"):
        with pytest.raises(RequestError, match=r"pip install '\.\[sweep\]'"):
            engines.of([engine])
