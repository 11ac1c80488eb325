"""recipe=own: from a folder and one command to an ordinary run, by way of a proposal."""

import contextlib
import io
import json
import math
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ddpm import build
from ddpm.commands import inspect
from ddpm.commands.evaluate import evaluate
from ddpm.commands.train import train
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.grammar import quote_paths
from ddpm.config.recipes import proposes
from ddpm.config.saved import plain
from ddpm.data.conditioning import ConditionedBatch
from ddpm.own_pictures import propose as own_pictures
from ddpm.own_pictures import trial as trials
from ddpm.own_pictures.propose import Proposal, propose, settled
from ddpm.own_pictures.settings import Cost
from ddpm.sweep.work import WORKS

# Small beside what is proposed, and quick; a budget that is enough on the slowest machine.
SMALL = ("network.channels=8", "network.groups=4", "schedule.T=20", "sampler.steps=4", "max_steps=4", "logger=csv",
         "budget=2h", "evaluation.num_samples=4")  # fmt: skip
OWN = ("recipe=own", "data.path=mine", *SMALL)


@pytest.fixture
def folder(workspace, monkeypatch):
    """80 pictures, 16x12, in `mine`."""
    monkeypatch.setattr(trials, "SECONDS", 0.0)
    fill(workspace / "mine")
    return workspace


def fill(folder, n=80):
    folder.mkdir()
    draw = np.random.default_rng(0)
    for k in range(n):
        Image.fromarray(draw.integers(0, 256, (16, 12, 3), np.uint8)).save(folder / f"{k}.png")


@pytest.fixture
def priced(folder, monkeypatch):
    """`priced(speed)` makes this a machine of so many multiplications a second, and returns a list of what it tries.

    Each entry is (height, width, channels, patch size, batch size).
    """
    tried = []

    def on(speed):
        def cost(module, batch, config):
            height, width = batch.values.shape[-2:]
            network = config.network
            tried.append((height, width, network.channels, network.get("patch_size", 1), config.loader.batch_size))
            step = 1e3 * height * width * network.channels**2 / network.get("patch_size", 1) ** 2 / speed
            return Cost(step, step / 3, 2**30)

        monkeypatch.setattr(own_pictures, "trial", cost)
        monkeypatch.setattr(own_pictures.build, "module", lambda config, images: None)  # nothing is trained
        return tried

    return on


def resize(folder, height, width):
    for file in (folder / "mine").iterdir():
        with Image.open(file) as picture:
            larger = picture.resize((width, height))
        larger.save(file)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What one command leaves, and what it says."""
    place, said = tmp_path_factory.mktemp("own"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(place)
        patch.setattr(trials, "SECONDS", 0.0)
        fill(place / "mine")
        run = train([*OWN, "out=run"])
    return run, said.getvalue()


@pytest.fixture
def run(trained, folder):
    """A copy of it, `run` in the current directory."""
    return Path(shutil.copytree(trained[0], folder / "run"))


def test_one_command_makes_an_ordinary_run(trained, monkeypatch):
    run, said = trained
    monkeypatch.chdir(run.parent)
    config = OmegaConf.load(run / "config.yaml")
    assert (config.name, config.data.size, config.data.channels) == ("own_mine", [16, 12], 3)
    assert (config.max_steps, config.network.channels, config.network.dropout) == (4, 8, 0.1)
    assert "mine: 72 pictures to train on, 8 to test on" in said
    assert "data.size=[16,12] " in said
    assert "network.channels=" not in said  # which was said already
    assert json.loads((run / "results.json").read_text())["metrics"]["bits_per_dim"]["n"] == 8
    with Image.open(run / "data.png") as sheet:
        assert min(sheet.size) > 8 * 12

    # The words that it has noted make the same configuration, and nothing is proposed for them.
    words = quote_paths(shlex.split((run / "proposal.txt").read_text().splitlines()[-1]))
    words = words[words.index("name=own_mine") :]
    assert not proposes(words)
    again, ours = plain(compose(words)), plain(config)
    for each in (again, ours):
        for key in ("budget", "signature"):
            each.pop(key, None)
    assert again == ours


@pytest.mark.slow
def test_ten_pictures_are_measured_where_the_one_that_is_held_out_scores_nothing(workspace, monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 0.0)
    fill(workspace / "mine", 10)
    results = json.loads((train([*OWN, "out=run"]) / "results.json").read_text())
    assert results["metrics"]["fid"]["value"] > 0
    assert results["metrics"]["bits_per_dim"]["n"] == 1
    assert not results["real"]


def test_the_run_is_measured_and_goes_on_as_any_other(run, monkeypatch):
    monkeypatch.delattr(own_pictures, "survey")  # nobody looks again
    found = evaluate(["ckpt=run", "evaluation.bits_per_dim.images=4"])
    assert found.metrics["bits_per_dim"]["n"] == 4
    assert train(["resume=run"]) == run
    assert train([*OWN, "out=run", "resume=auto"]) == run
    with pytest.raises(RequestError, match=r"budget=1d \(was 2h\): that would be another run"):
        train([*OWN, "budget=1d", "out=run", "resume=auto"])


def test_inspect_shows_the_same_and_trains_nothing(folder, capsys):
    assert inspect.main(["data.path=mine", *SMALL, "out=seen"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"data.size=\[16,12\] +the aspect ratio that most pictures have", said)
    assert {file.name for file in (folder / "seen").iterdir()} == {"data.png", "proposal.txt"}
    assert not (folder / "runs").exists()
    assert not (folder / "data").exists()  # nothing was decoded for keeps


def test_what_cannot_be_read_is_left_out(folder, capsys):
    for k in range(0, 80, 7):
        (folder / "mine" / f"{k}.png").write_bytes(b"broken")
    made = propose(OWN)
    assert "data.on_error=skip" in made.words
    # 8 are held out, and 12 are broken: no more is sure to be there.
    assert f"loader.batch_size={80 - 8 - 12}" in made.words
    assert "damaged: " in capsys.readouterr().out
    made.write_sheet(folder)
    assert (folder / "data.png").is_file()


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        (2e11, (32, 32, 32)),  # larger pictures before a wider network
        (1e14, (32, 32, 128)),
    ],
)
def test_the_faster_the_machine_the_larger_the_pictures_and_then_the_network(folder, priced, speed, expected):
    resize(folder, 32, 32)
    tried = priced(speed)
    made = Proposal(["recipe=own", "data.path=mine", "budget=10min"])
    made.make()
    rung = made.chosen.rung
    assert (rung.height, rung.width, rung.channels) == expected
    assert len(tried) <= 5
    took = made.chosen.plan.seconds(made.chosen.plan.steps)
    assert 0.8 * 600 < took < 0.9 * 600  # a run is slower than its trial


@pytest.mark.parametrize(
    ("speed", "said", "expected"),
    [
        (7e11, [], (64, 2, 32)),  # larger pictures, in patches, before every pixel by itself
        (3e12, [], (64, 1, 32)),
        (1e16, [], (64, 1, 128)),  # and that before a wider network
        (1e16, ["network.patch_size=2"], (64, 2, 128)),
        (1e16, ["network.patch_size=4", "size=32"], (32, 4, 128)),
    ],
)
def test_large_pictures_are_in_patches_where_time_is_short(folder, priced, speed, said, expected):
    resize(folder, 64, 64)
    priced(speed)
    made = Proposal(["recipe=own", "data.path=mine", "budget=10min", *said])
    made.make()
    rung = made.chosen.rung
    assert (rung.height, rung.patch_size, rung.channels) == expected
    config = compose([*made.words, *made.asked])
    assert config.network.patch_size == rung.patch_size
    build.network(config, build.dataset(config))  # which the size fits


def test_more_budget_is_more_steps_and_a_larger_batch(folder, priced):
    priced(2e10)
    asked = ["recipe=own", "data.path=mine", "network.channels=32", "data.size=16"]
    plans = []
    for budget in ("10min", "2h"):
        made = Proposal([*asked, f"budget={budget}"])
        made.make()
        plans.append(made.chosen.plan)
    assert plans[1].shown > 8 * plans[0].shown
    assert plans[1].batch > plans[0].batch


def test_every_choice_can_be_overridden(folder, priced):
    priced(1e14)
    said = ["data.size=8", "network.channels=16", "loader.batch_size=7", "max_steps=300", "optimizer.lr=1e-4"]
    made = Proposal(["recipe=own", "data.path=mine", "budget=10min", *said])
    made.make()
    keys = {choice.key for choice in made.choices}
    assert keys.isdisjoint(word.partition("=")[0] for word in said)
    config = compose([*made.words, *made.asked])
    assert (config.data.size, config.network.channels, config.loader.batch_size, config.max_steps) == (8, 16, 7, 300)
    assert (
        pytest.approx(math.log(0.5) / math.log(config.ema.decay), rel=0.01) == 300 * 0.03
    )  # by the steps that are said


def test_a_network_that_is_chosen_keeps_its_own_settings(folder, priced):
    priced(1e14)
    made = Proposal(["recipe=own", "data.path=mine", "network=iddpm", "debug=smoke"])
    made.make()
    assert not any(choice.key.startswith("network.") for choice in made.choices)
    assert compose([*made.words, *made.asked]).max_steps == 6  # as debug=smoke says


def test_a_budget_in_which_little_fits_is_said_to_be_rough(folder, priced):
    priced(3e9)
    made = Proposal(["recipe=own", "data.path=mine", "budget=10min"])
    made.make()
    assert made.report()[-1].startswith("samples will be rough: with budget=")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("budget=30s size=16", "budget=30s is too short here for pictures of 16x12: use budget="),
        ("budget=30s size=14", "too short here for pictures of 14x10: use budget="),
        ("budget=soon", "budget=soon must be a time"),
        ("size=24", "larger than the pictures, which are 16x12: use size=16"),
        ("size=9", "does not halve 1 times, as a network for it would: use size=8 or size=10"),
        ("trainer.devices=2", "here are 2: use trainer.devices=1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_nearest_that_can(folder, priced, said, message):
    priced(1e7)
    with pytest.raises((RequestError, ValueError), match=message):
        train(["recipe=own", "data.path=mine", *said.split()])
    assert sorted(path.name for path in folder.iterdir()) == ["mine"]


def test_settings_are_proposed_for_a_folder_only(folder):
    with pytest.raises(RequestError, match=re.escape("data=digits is none: use data=folder data.path=FOLDER")):
        train(["recipe=own", "data=digits"])


def test_the_runs_of_a_sweep_share_a_proposal(folder, priced):
    priced(1e14)
    asked = [*OWN, "prediction=eps,v", "seed=1,2"]
    words = WORKS["train"].prepared(asked)
    assert words[-1] == "budget=null"
    assert "data.size=[16,12]" in words
    assert {"prediction=eps,v", "seed=1,2"} <= set(words)
    assert WORKS["train"].prepared(words) == words
    with pytest.raises(RequestError, match="size: the runs of a sweep share"):
        WORKS["train"].prepared([*asked, "size=8,16"])


@pytest.mark.parametrize(("shape", "coded"), [((3, 16, 16), 26), ((1, 8, 8), 40), ((3, 128, 128), 1), ((2,), 0)])
def test_codecs_are_timed_on_a_few_pictures_and_on_nothing_else(monkeypatch, shape, coded):
    seen, clock = [], iter([10.0, 10.0 + 2.0 * coded])
    monkeypatch.setattr(trials.codecs, "rows", lambda images: seen.append(len(images)))
    monkeypatch.setattr(trials, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert trials._coding(ConditionedBatch(torch.zeros(40, *shape, dtype=torch.uint8), None)) == (2.0 if coded else 0.0)
    assert seen == [coded] * bool(coded)


def test_a_trial_that_is_interrupted_is_an_interruption(folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials.Clock, "on_train_batch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        propose(list(OWN))


def test_a_clock_counts_the_steps_after_the_first(monkeypatch):
    clock = trials.Clock()
    clock.ends = [100.0, 110.0, 111.0, 113.0]  # two to warm up, then one of a second and one of two
    assert clock.seconds == 1.5
    monkeypatch.setattr(trials.torch, "get_num_threads", lambda: 2)
    clock.computed = [0.0, 20.0, 21.0, 22.5]  # of the six seconds that two threads had
    assert clock.running == pytest.approx(2.5 / 6)


@pytest.mark.parametrize(("running", "threads", "said"), [(0.9, 2, ""), (0.4, 1, "end"), (0.4, 3, "OMP_NUM_THREADS=1")])
def test_a_trial_that_others_disturb_says_so(folder, monkeypatch, capsys, running, threads, said):
    monkeypatch.setattr(own_pictures, "trial", lambda *_: Cost(1e-4, 1e-5, running=running))
    monkeypatch.setattr(own_pictures.build, "module", lambda config, images: None)
    monkeypatch.setattr(own_pictures.torch, "get_num_threads", lambda: threads)
    propose(list(OWN))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "this takes about" in line]
    assert line.endswith(said or "by a trial on this machine")
    assert ("other programs keep the cores busy" in line) == bool(said)
    monkeypatch.setattr(own_pictures, "trial", lambda *_: Cost(1e9, 1e9, running=running))
    with pytest.raises(RequestError, match="is too short here") as refused:
        propose([word for word in OWN if not word.startswith("max_steps=")])
    assert str(refused.value).endswith(said)
    assert ("other programs" in str(refused.value)) == bool(said)


def test_of_several_devices_one_is_proposed(folder, priced, monkeypatch):
    priced(1e12)
    monkeypatch.setattr(own_pictures.launch, "count_processes", lambda trainer: 4 if trainer.devices == "auto" else 1)
    made = propose(list(OWN))
    assert "trainer.devices=1" in made.words
    assert compose([*made.words, *OWN]).trainer.devices == 1
    assert "trainer.devices=1" not in propose([*OWN, "trainer.devices=1"]).words


def test_what_the_clock_of_a_trial_sees_is_said(folder, monkeypatch, capsys):
    monkeypatch.setattr(trials.Clock, "running", 0.25)
    propose(list(OWN))
    assert "other programs keep the cores busy" in capsys.readouterr().out


def test_settled_words_propose_nothing():
    assert settled(["recipe=own", "budget=2h", "seed=2"], ["data.size=8"]) == [
        "data.size=8", "recipe=own", "seed=2", "budget=null"
    ]  # fmt: skip


def test_the_command_that_is_noted_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    """Two spaces stay two, and a long command stays whole."""
    path = f"/{'pictures of mine/' * 80}two  spaces"
    noted = SimpleNamespace(asked=[f"data.path='{path}'"], words=["seed=3"], seen=list, report=list)
    Proposal.write(noted, tmp_path)
    *_, command = (tmp_path / own_pictures.REPORT).read_text().splitlines()
    assert shlex.split(command)[-3:] == ["seed=3", f"data.path={path}", "budget=null"]
