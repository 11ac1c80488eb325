"""Any number of processes, on one machine or several, trains the same model and measures the same numbers."""

import csv
import json
import signal

import numpy as np
import pytest
import torch
from commands import Fork, Ranks, free_port
from PIL import Image
from torture import until

SMOKE = ["debug=smoke", "logger=csv", "trainer.accelerator=cpu"]
# Of the 60 pictures 6 are for testing: one chunk of them is validated and measured, and all other processes have none.
# Batches of 30 do not divide by 4, nor by 8.
SIXTY = [
    *SMOKE, "recipe=digits", "data=folder", "data.path=pictures", "data.size=[8,8]", "data.channels=1",
    "data.horizontal_flip=true",
    "loader.batch_size=30", "network.channels=8", "network.groups=4", "evaluation.num_samples=20",
    "evaluation.fid_split=train", "timesteps=loss_second_moment", "+timesteps.history=1",
    "evaluation.metrics=[inception_score,fid,precision_recall,bits_per_dim]",
]  # fmt: skip
RECIPES = {
    "digits": [*SMOKE, "evaluation.bits_per_dim.images=250"],
    "swiss_roll": [*SMOKE, "recipe=swiss_roll"],
    "folder": SIXTY,
}
MEASURED_TIME = ("train/images_per_second", "train/data_wait")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    cwd, random = tmp_path_factory.mktemp("user"), np.random.default_rng(0)
    (cwd / "pictures").mkdir()
    for k in range(60):
        Image.fromarray(random.integers(0, 256, (9, 8, 3), np.uint8)).save(cwd / "pictures" / f"{k:02d}.png")
    return cwd


@pytest.fixture(scope="module")
def alone(workplace):
    """The run of a recipe by one process, trained and evaluated once."""

    def run_of(recipe):
        folder = workplace / f"{recipe}-alone"
        if not folder.exists():
            Fork("train.py", *RECIPES[recipe], "evaluate_after=true", f"out={folder}", cwd=workplace).wait()
        return folder

    return run_of


def logged(folder):
    """The numbers of metrics.csv but for those of time, by step and name."""
    with (folder / "metrics.csv").open() as file:
        rows = [(row.pop("step"), row) for row in csv.DictReader(file)]
    return {
        (step, name): float(value)
        for step, row in rows
        for name, value in row.items()
        if value and name not in MEASURED_TIME
    }


def measured(folder):
    """The numbers of results.json by part, name and kind."""
    results = json.loads((folder / "results.json").read_text())
    return {
        (part, name, kind): value
        for part in ("metrics", "real")
        for name, entry in results[part].items()
        for kind, value in entry.items()
        if not isinstance(value, str)
    }


def assert_same(folder, one, trained=True):
    assert measured(folder) == pytest.approx(measured(one), rel=1e-5)
    if trained:
        assert logged(folder) == pytest.approx(logged(one), rel=1e-5)
        weights, expected = (
            torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (folder, one)
        )
        torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_nodes_of_two_processes_some_of_them_idle(workplace, alone):
    settings = [*SIXTY, "evaluate_after=true", "trainer.accumulate=2"]
    printed = Ranks("train.py", *settings, "out=shared", cwd=workplace, devices=2, nodes=2).wait(timeout=300)
    assert "for 4 processes" in printed
    # On a busy machine processes may wait for data, and be advised; nothing else is to be warned of.
    assert [line for line in printed.splitlines() if "arning" in line and "waiting for data" not in line] == []
    assert_same(workplace / "shared", alone("folder"))
    assert any("validation/bits_per_dim" in name for _, name in logged(workplace / "shared"))


@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_where_one_process_dies_the_others_end_with_a_line(tmp_path, killed):
    settings = ["logger=csv", "network.channels=8", "network.groups=4", "every.checkpoint=1", "max_steps=100000"]
    ranks = Ranks("train.py", *settings, "trainer.accelerator=cpu", "out=run", cwd=tmp_path, devices=2)
    assert until((tmp_path / "run/checkpoints/last.ckpt").exists, ranks, every=0.05)
    survivor = ranks.forks[1 - killed]
    ranks.forks[killed].send(signal.SIGKILL)
    printed = survivor.wait(1)
    assert "Traceback" not in printed
    if killed == 1:
        *_, line = printed.strip().splitlines()
        assert line.startswith("error: another process of this job has ended")
        assert f"resume={tmp_path / 'run'}" in line


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4, 8])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_on_any_number_of_processes(workplace, alone, recipe, processes):
    one, together = alone(recipe), f"{recipe}-{processes}"
    Ranks(
        "train.py", *RECIPES[recipe], "evaluate_after=true", f"out={together}", cwd=workplace, devices=processes
    ).wait(timeout=600)
    assert_same(workplace / together, one)
    Ranks(
        "evaluate.py", "logger=csv", f"ckpt={one}", f"out={together}-evaluated", cwd=workplace, devices=processes
    ).wait(timeout=600)
    assert_same(workplace / f"{together}-evaluated", one, trained=False)


@pytest.mark.slow
def test_lightning_starts_the_processes_of_each_node(workplace, alone):
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    settings = [*SIXTY, "evaluate_after=true", "trainer.num_nodes=2", "trainer.devices=2", "out=by-lightning"]
    nodes = [Fork("train.py", *settings, cwd=workplace, NODE_RANK=str(node), **job) for node in range(2)]
    for node in nodes:
        node.wait(timeout=600)
    assert_same(workplace / "by-lightning", alone("folder"))


@pytest.mark.slow
def test_torchrun_numbers_the_processes_of_two_nodes(workplace, alone):
    settings = [*SIXTY, "evaluate_after=true", "trainer=ddp", "out=by-torchrun"]
    Ranks("train.py", *settings, cwd=workplace, devices=2, nodes=2, torchrun=True).wait(timeout=600)
    assert_same(workplace / "by-torchrun", alone("folder"))
