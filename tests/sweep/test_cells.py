"""What a cell tells its sweep: how it ended, and to a search the number that counts. Training is not part of it."""

import json
import math
import signal

import pytest
import yaml
from omegaconf import OmegaConf

from ddpm.runs import records
from ddpm.sweep import cells, sweep
from ddpm.sweep.work import WORKS

SEARCH = [
    "debug=smoke", "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=6",
    "optimizer.lr=choice(0.001,0.002,0.004,0.008,0.016,0.032)",
    # Of the same family as the default, but it tries every value once.
    "hydra/sweeper/sampler=grid",
]  # fmt: skip


@pytest.fixture
def pretended(monkeypatch):
    """Cells that do not train: each ends with the code, and leaves the results, that a function of its rate says."""

    def fake(ends):
        def run(words, *_):
            said = dict(word.split("=", 1) for word in words if "=" in word)
            code, results = ends(float(said["optimizer.lr"]))
            folder = records.Path(said["out"])
            folder.mkdir(parents=True, exist_ok=True)
            if results is not None:
                (folder / "results.json").write_text(json.dumps(results))
            return code, "a complaint"

        monkeypatch.setattr("ddpm.sweep.process.run", run)

    return fake


def found(workspace):
    folder = (workspace / "runs/sweeps/latest").resolve()
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    return best["best_params"]["optimizer.lr"], best["best_value"], records.within(folder)


def test_a_cell_s_folder_is_named_by_as_many_whole_settings_as_fit(workspace):
    words = [
        "evaluation.seed=0",
        "sampler=dpm_solver_sde",
        "sampler.spacing=quadratic",
        "sampler.steps=10",
        "seed=[1,2]",
    ]
    axes = [word.partition("=")[0] for word in words]
    name = "007_evaluation.seed-0_sampler-dpm_solver_sde_sampler.spacing-quadratic"  # and not: _sampler.steps-1
    assert cells.named(workspace, 7, words, axes).folder.name == name
    assert cells.named(workspace, 7, words, axes[3:]).folder.name == "007_sampler.steps-10_seed-1-2"
    long = cells.named(workspace, 7, [f"data.path={'x' * 99}"], ["data.path"])
    assert long.folder.name == f"007_data.path-{'x' * 70}"


@pytest.mark.filterwarnings("ignore")  # of Optuna and SQLAlchemy about themselves, in this process
@pytest.mark.parametrize(
    ("direction", "metric", "value", "best"),
    [
        ("minimize", "fid", lambda lr: abs(lr - 0.004) + 1, (0.004, 1.0)),
        ("maximize", "inception_score", lambda lr: 9 - abs(lr - 0.004), (0.004, 9.0)),
    ],
)
def test_a_search_finds_the_best_in_its_direction_among_cells_with_and_without_a_number(
    pretended, workspace, direction, metric, value, best
):
    """One diverged, one was never measured, one has no such metric, one has a number that is none."""

    def ends(lr):
        code = 1 if lr == 0.001 else 0
        if lr == 0.002:
            return code, None
        if lr == 0.008:
            return code, {"metrics": {"kid": {"value": 0.0}}}
        number = float("nan") if lr == 0.016 else value(lr)
        return code, {"metrics": {metric: {"value": -1e9 if code and direction == "minimize" else number}}}

    pretended(ends)
    words = [f"optimized_metric={metric}", f"hydra.sweeper.direction={direction}"]
    assert sweep.run([*SEARCH, *words], WORKS["train"]) == 1  # a cell failed
    rate, number, recorded = found(workspace)
    assert (rate, number) == (best[0], pytest.approx(best[1]))
    assert sorted(cell.status for cell in recorded) == ["failed", *["finished"] * 5]


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (0, "finished", ""),
        (1, "failed", "a complaint"),
        (2, "refused", "a complaint"),
        (130, "interrupted", "a complaint"),
        (143, "interrupted", "a complaint"),
        (-signal.SIGKILL, "failed", "SIGKILL"),
        (-signal.SIGINT, "interrupted", "SIGINT"),
        (-signal.SIGTERM, "interrupted", "SIGTERM"),
    ],
)
def test_an_exit_code_says_how_a_cell_ended(pretended, workspace, code, status, reason):
    pretended(lambda lr: (code, None))
    cell = cells.named(workspace, 0, ["optimizer.lr=0.5"], ["optimizer.lr"])
    cells._execute(cell, WORKS["train"], OmegaConf.create({}), {}, (), alone=True, shares_gpus=False)
    assert cell.status == status
    assert reason in cell.reason
    assert cell.folder.name == "000_optimizer.lr-0.5"


@pytest.mark.parametrize(
    ("launcher", "code", "status"),
    [
        ("submitit_slurm", -1, "waiting"),
        ("submitit_slurm", 144, "waiting"),
        ("submitit_local", 144, "waiting"),
        ("submitit_local", -1, "interrupted"),  # nothing would start it again
        ("submitit_local", 1, "interrupted"),
    ],
)
def test_a_cell_waits_where_its_job_starts_again(launcher, code, status):
    assert cells._interrupted(SystemExit(code), cells.REQUEUED[launcher])[0] == status


def test_a_search_has_the_worst_number_of_what_has_none(workspace):
    cell = records.Cell(workspace / "cell", [], [], "finished")
    cell.folder.mkdir()
    for worst in (math.inf, -math.inf):
        assert cells._measured(cell, "fid", worst) == worst
        for content in ("{", "[]", '{"metrics": {"fid": {}}}', '{"metrics": {"fid": {"value": null}}}'):
            (cell.folder / "results.json").write_text(content)
            assert cells._measured(cell, "fid", worst) == worst
        (cell.folder / "results.json").write_text('{"metrics": {"fid": {"value": 3}}}')
        assert cells._measured(cell, "fid", worst) == 3.0
        (cell.folder / "results.json").unlink()
