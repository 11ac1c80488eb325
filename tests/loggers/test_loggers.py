"""What W&B and TensorBoard hold of a run is what metrics.csv holds; who is grouped with whom, and how a run ended."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
from commands import SMALL, Fork
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torture import until

from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.saved import compose_saved
from ddpm.loggers import by_t, loggers
from ddpm.loggers.logger import LoggedRun
from ddpm.loggers.metrics_csv import MetricsCsv
from ddpm.loggers.tensorboard import TensorBoard
from ddpm.runs import records

LOGGED = [*SMALL, "evaluation.bits_per_dim.images=100", "every.log=1", "logger=[wandb,tensorboard]"]


def wandb_records(folder):
    """Of every W&B run in the folder, oldest first: its records by type, as W&B's own reader prints them."""
    found = []
    for run in sorted((folder / "wandb").glob("offline-run-*")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        by_type = {}
        for record in map(json.loads, printed.splitlines()):
            by_type.setdefault(record["type"], []).append(record.get(record["type"]))
        found.append(by_type)
    return found


def wandb_history(run):
    """step -> metric -> number, pictures and histograms aside."""
    rows = {}
    for item in (record["item"] for record in run["history"]):
        others = tuple(key.removesuffix("_type") for key in item if key.endswith("._type"))
        numbers = {key: value for key, value in item.items() if not key.startswith(("_", "trainer/", *others))}
        rows.setdefault(item["trainer/global_step"], {}).update(numbers)
    return {step: row for step, row in rows.items() if row}


def histogram(run, name):
    """The last one: its bars and their edges."""
    item = [record["item"] for record in run["history"] if f"{name}.bins" in record["item"]][-1]
    return np.array(item[f"{name}.values"]), np.array(item[f"{name}.bins"])


def csv_history(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {int(row.pop("step")): {key: float(text) for key, text in row.items() if text} for row in rows}


def tensorboard(folder):
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "scalars": 0})
    return events.Reload()


def tensorboard_history(folder):
    events, rows = tensorboard(folder), {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            row = rows.setdefault(event.step, {})
            assert name not in row, f"{name} is there twice at step {event.step}"
            row[name] = event.value
    return rows


def assert_same_to_single_precision(rows, whole):
    assert rows.keys() == whole.keys()
    for step, row in rows.items():
        assert row == pytest.approx(whole[step], rel=1e-6), step


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def whole(workplace):
    """A run and its evaluation, in every logger."""
    Fork("train.py", *LOGGED, "evaluate_after=true", "logger.wandb.checkpoint=true", "out=whole", cwd=workplace).wait()
    return workplace / "whole"


@pytest.fixture(scope="module")
def resumed(workplace):
    """A run that was stopped and went on."""
    seldom = ["max_steps=24", "every.validation=6", "every.samples=12"]
    process = Fork("train.py", *LOGGED, *seldom, "out=stopped", cwd=workplace)
    folder = workplace / "stopped"
    until((folder / "metrics.csv").exists, process)
    process.send(signal.SIGTERM)
    process.wait(143)
    Fork("train.py", "resume=stopped", cwd=workplace).wait()
    return folder


def test_a_run_is_the_same_in_wandb_and_in_metrics_csv(whole):
    (run,) = wandb_records(whole)
    history = wandb_history(run)
    assert history == csv_history(whole)
    assert sorted(history) == [1, 2, 3, 4, 5, 6]
    assert {"train/loss", "validation/bits_per_dim_16_timesteps", "evaluation/fid"} <= history[6].keys()
    assert run["exit"][0].get("exit_code", 0) == 0
    assert "preempting" not in run


def test_a_run_is_the_same_in_tensorboard(whole):
    assert_same_to_single_precision(tensorboard_history(whole), csv_history(whole))


def test_a_resumed_run_is_the_same_too(resumed):
    first, second = wandb_records(resumed)
    before, after = wandb_history(first), wandb_history(second)
    assert max(before) < min(after)
    assert before | after == csv_history(resumed)
    assert_same_to_single_precision(tensorboard_history(resumed), csv_history(resumed))


def test_a_run_that_was_stopped_is_preempted_and_says_what_goes_on_with_it(resumed):
    first, second = wandb_records(resumed)
    assert first["preempting"]
    assert first["exit"][0]["exit_code"] == 143
    assert "preempting" not in second
    assert second["exit"][0].get("exit_code", 0) == 0
    assert first["run"][0]["run_group"] == second["run"][0]["run_group"] == "digits stopped"
    assert second["run"][0]["config"]["update"]["continues"] == first["run"][0]["run_id"]
    assert second["run"][0]["config"]["update"]["continues_from_step"] == max(wandb_history(first))


@pytest.mark.slow
def test_a_run_outlives_wandb(workplace):
    """Whose process is killed in the middle."""
    folder = workplace / "outliving"
    rarely = "every={log: 1, validation: 100, samples: 100, checkpoint: 100}"
    artifact = "logger.wandb.checkpoint=true"
    process = Fork("train.py", *LOGGED, rarely, artifact, "max_steps=80", "out=outliving", cwd=workplace)
    until(lambda: (folder / "metrics.csv").exists() and len(csv_history(folder)) > 2, process)
    [service] = [
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if b"wandb-core" in (command := entry.read_bytes())
        and str(process.process.pid).encode() in command.split(b"\0")
    ]
    os.kill(service, signal.SIGKILL)
    printed = process.wait()
    assert printed.count("warning: W&B is gone") == 1
    assert "Traceback" not in printed
    assert sorted(csv_history(folder)) == list(range(1, 81))


def test_a_run_that_failed_is_marked_failed(workplace):
    Fork("train.py", *LOGGED, "optimizer.lr=1e30", "optimizer.warmup=0", "out=failed", cwd=workplace).wait(1)
    (run,) = wandb_records(workplace / "failed")
    assert run["exit"][0]["exit_code"] == 1
    assert "preempting" not in run


def test_the_pictures_are_in_the_run_folder_and_in_every_logger(whole):
    (run,) = wandb_records(whole)
    names = {"samples", "progressive"}
    of_evaluation = {"evaluation/samples", "evaluation/reverse", "evaluation/rate_distortion"}
    steps = {
        name: [r["item"]["trainer/global_step"] for r in run["history"] if f"{name}._type" in r["item"]]
        for name in names | of_evaluation
    }
    assert steps == {**{name: [3, 6] for name in names}, **{name: [6] for name in of_evaluation}}
    events = tensorboard(whole)
    shown = {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}
    assert shown == steps | {"data": [0]}
    assert [r["item"]["trainer/global_step"] for r in run["history"] if "data._type" in r["item"]] == [0]
    (film,) = [r["item"] for r in run["history"] if "training._type" in r["item"]]
    assert (film["trainer/global_step"], film["training._type"]) == (6, "video-file")
    for name in names:
        files = sorted((whole / name).iterdir())
        assert [file.name for file in files] == ["step_0000003.png", "step_0000006.png"]
        with Image.open(files[-1]) as picture:
            assert picture.size == (events.Images(name)[-1].width, events.Images(name)[-1].height)


def test_the_last_estimate_of_a_strip_is_the_sample(whole):
    """To the left of it are those of the earlier steps."""
    samples, strip = (np.asarray(Image.open(whole / name / "step_0000006.png")) for name in ("samples", "progressive"))
    tile = samples.shape[0] // 8  # an image and its gap
    for row in range(6):
        image = samples[:tile, row * tile : (row + 1) * tile]
        shown = strip[row * tile : (row + 1) * tile, -tile - strip.shape[1] % tile :][:, :tile]
        assert np.array_equal(image, shown)


def test_the_terms_by_t_add_up_to_the_bound(whole):
    (run,) = wandb_records(whole)
    bars, edges = histogram(run, "evaluation/terms_by_t")
    assert (edges[0], edges[-1]) == (1, 21)
    measured = csv_history(whole)[6]
    sum_of_terms = measured["evaluation/bits_per_dim"] - measured["evaluation/bits_per_dim_prior"]
    assert float(bars @ np.diff(edges)) == pytest.approx(sum_of_terms)
    estimated, _ = histogram(run, "validation/terms_by_t")
    assert estimated == pytest.approx(bars, rel=0.3)
    assert tensorboard(whole).Tags()["histograms"] == ["validation/terms_by_t", "evaluation/terms_by_t"]


@pytest.mark.parametrize("T", [1, 20, 25, 26, 999, 1000, 4000])
def test_means_by_t_are_those_of_each_bin(T):
    terms = torch.rand(T, generator=torch.Generator().manual_seed(T), dtype=torch.float64)
    edges = by_t.edges_of_t(T)
    assert (edges[0], edges[-1]) == (1, T + 1)
    assert (np.diff(edges) >= 1).all()
    order = torch.randperm(T, generator=torch.Generator().manual_seed(0))
    halves = torch.stack([terms[order], -terms[order] / 2])  # two parts of each term
    found = by_t.means_by_t(torch.stack([order + 1] * 2), halves, T)
    expected = [float(terms[low - 1 : high - 1].mean()) / 2 for low, high in pairwise(edges)]
    assert found == pytest.approx(expected)


def test_the_checkpoint_is_an_artifact_where_it_was_asked_for(whole, resumed):
    (run,) = wandb_records(whole)
    (artifact,) = run["artifact"]
    assert artifact["type"] == "model"
    (file,) = artifact["manifest"]["contents"]
    assert Path(file["local_path"]).read_bytes() == (whole / "checkpoints" / "last.ckpt").read_bytes()
    assert "/wandb/offline-run-" in file["local_path"]
    assert not any("artifact" in run for run in wandb_records(resumed))


@pytest.mark.slow
def test_a_cell_is_named_by_what_varies_in_the_group_of_its_sweep(workplace):
    sweep = workplace / "runs" / "sweeps" / "today"
    sweep.mkdir(parents=True)
    cell = records.Cell(sweep / "000_seed-3", ["seed=3", "debug=smoke"], ["objective=simple", "seed=3"], "running")
    cell.write()
    Fork("train.py", *LOGGED, "seed=3", "max_steps=1", f"out={cell.folder}", cwd=workplace).wait()
    Fork("evaluate.py", f"ckpt={cell.folder}", "evaluation.metrics=[bits_per_dim]", cwd=workplace).wait()
    (folder,) = (cell.folder / "evaluations").iterdir()
    (trained,), (evaluated,) = wandb_records(cell.folder), wandb_records(folder)
    names = ("display_name", "run_group", "job_type")
    assert [trained["run"][0][name] for name in names] == ["objective=simple seed=3", "sweep today", "train"]
    assert [evaluated["run"][0][name] for name in names] == [
        f"objective=simple seed=3 evaluation {folder.name}", "sweep today", "eval",
    ]  # fmt: skip
    assert wandb_history(evaluated) == csv_history(folder)
    measured = json.loads((folder / "results.json").read_text())["metrics"]["bits_per_dim"]["value"]
    assert wandb_history(evaluated)[1]["evaluation/bits_per_dim"] == pytest.approx(measured)


@pytest.mark.parametrize(
    ("damage", "left_out"),
    [
        ("", 0),
        ("3,0.1", 1),  # 0.125 once
        ("3,0.125,7\n", 1),
        ("1.5,2\n", 1),
        ("x" * 200_000, 1),
        ("x" * 200_000 + "\n", 1),
        ("\0\n\0\n", 2),
    ],
)
def test_damaged_lines_of_metrics_csv_are_told_of_and_kept(damage, left_out, tmp_path, capsys):
    file = tmp_path / "metrics.csv"
    file.write_text(f"step,loss\n1,0.5\n2,0.25\n{damage}")
    MetricsCsv(tmp_path, step=3).log_metrics({"loss": 0.75}, 4)
    assert file.read_text().split() == ["step,loss", "1,0.5", "2,0.25", "4,0.75"]
    assert (f"is damaged: {left_out} of its lines are left out" in capsys.readouterr().err) == bool(left_out)
    if left_out:
        assert (tmp_path / "metrics.csv.damaged").read_text().endswith(damage)


def test_tensorboard_forgets_what_is_trained_again(tmp_path):
    for value, (resumed_from, last) in enumerate([(0, 5), (3, 6)]):
        logger = TensorBoard.of(LoggedRun(tmp_path, {}, {}, resumed_from))
        for step in range(resumed_from + 1, last + 1):
            logger.log_metrics({"train/loss": float(value)}, step)
        logger.finalize("failed")
    losses = {step: row["train/loss"] for step, row in tensorboard_history(tmp_path).items()}
    assert losses == {1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1}


# --- online, where no test can go: what W&B is asked for -------------------------------------------------------------


@pytest.fixture
def online(monkeypatch):
    """The arguments of every wandb.init."""
    asked = []

    def init(**arguments):
        asked.append(arguments)
        return SimpleNamespace(define_metric=lambda *_, **__: None, url="https://wandb.ai/me/ddpm/runs/abc", id="abc")

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", init)
    return asked


@pytest.fixture
def run_folder(tmp_path):
    """Of a run that was online."""
    folder = tmp_path / "2026-01-01"
    (folder / "wandb" / "run-20260101_000000-abc").mkdir(parents=True)
    (folder / "config.yaml").touch()
    return folder


CONFIG = {"name": "digits", "max_steps": 9, "logger": {"wandb": {"project": "ddpm", "checkpoint": False}}}


def saved(run_folder, step):
    return Checkpoint(run_folder / "checkpoints" / "last.ckpt", CONFIG, {}, step)


def test_an_online_run_says_where_it_is(online, tmp_path):
    (tmp_path / "wandb").mkdir()
    loggers.of_training(tmp_path, CONFIG)
    assert (tmp_path / "wandb" / "url").read_text() == "https://wandb.ai/me/ddpm/runs/abc\n"
    assert "id" not in online[0]
    assert "checkpoint" not in online[0]
    assert online[0]["project"] == "ddpm"


def test_an_online_run_that_is_resumed_goes_on(online, run_folder):
    loggers.of_training(run_folder, CONFIG, 5)
    assert (online[0]["id"], online[0]["resume"]) == ("abc", "allow")
    assert online[0]["config"] == CONFIG


def test_an_online_run_after_an_offline_one_is_another_that_says_what_it_continues(online, run_folder):
    """The newest is told by its time, whatever its folder's name begins with."""
    (run_folder / "wandb" / "offline-run-20260102_000000-def").mkdir()
    loggers.of_training(run_folder, CONFIG, 5)
    assert not online[0].keys() & {"id", "resume"}
    assert (online[0]["config"]["continues"], online[0]["config"]["continues_from_step"]) == ("def", 5)


def test_an_online_evaluation_is_in_the_run_that_has_finished(online, run_folder):
    folder = run_folder / "evaluations" / "0123456789"
    (folder / "wandb").mkdir(parents=True)
    loggers.of_evaluation(folder, CONFIG, saved(run_folder, 9))
    assert (online[0]["id"], online[0]["resume"]) == ("abc", "allow")
    assert not online[0].keys() & {"name", "group", "job_type", "config"}
    loggers.of_evaluation(folder, CONFIG, saved(run_folder, 5))  # the training may be going on
    assert "id" not in online[1]
    assert online[1]["group"] == "digits 2026-01-01"


def test_a_checkpoint_without_a_run_is_evaluated_in_a_run_by_itself(online, tmp_path):
    (tmp_path / "wandb").mkdir()
    loggers.of_evaluation(tmp_path, CONFIG, Checkpoint(tmp_path / "theirs.ckpt", {"foreign": "pesser"}, {}, 9))
    assert online[0]["job_type"] == "eval"
    assert online[0]["name"] == f"digits theirs evaluation {tmp_path.name}"
    assert "group" not in online[0]


def test_where_wandb_cannot_be_reached_a_resumed_run_becomes_a_second_one(online, run_folder, monkeypatch, capsys):
    reachable = wandb.init

    def init(**arguments):
        run = reachable(**arguments)
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no route")
        return run

    monkeypatch.setattr(wandb, "init", init)
    loggers.of_training(run_folder, CONFIG, 5)
    assert "no route" in capsys.readouterr().err
    assert online[1]["mode"] == "offline"
    assert not online[1].keys() & {"id", "resume"}
    assert online[1]["config"]["continues"] == "abc"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("project", "a/b", "Invalid project name 'a/b'"),
        ("id", "a/b", "Run ID cannot contain"),
        ("tags", [""], "Tag at index 0 is empty"),
        ("tags", ["x" * 100], "Tags must be between 1 and 64 characters"),
        ("resume", "maybe", "Input should be 'allow'"),
    ],
)
def test_a_setting_that_wandb_refuses_is_one_line_before_there_is_a_run(key, value, message):
    config = OmegaConf.create({**CONFIG, "logger": {"wandb": {"project": "ddpm", key: value}}})
    with pytest.raises(ValueError, match=rf"^W&B refuses logger\.wandb\.{key}=.*: .*{message}") as refusal:
        loggers.check(config)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["config", "settings"])
def test_what_a_run_tells_wandb_itself_is_not_set(key):
    config = OmegaConf.create({**CONFIG, "logger": {"wandb": {"project": "ddpm", key: {"a": 1}}}})
    with pytest.raises(ValueError, match=rf"^logger\.wandb\.{key} is the framework's own: leave it out"):
        loggers.check(config)


def test_settings_that_wandb_takes_are_passed_on():
    taken = {
        "project": "ddpm",
        "id": "abc",
        "tags": ["é"],
        "resume": "allow",
        "notes": None,
        "group": "a/b",
        "dir": "x",
    }
    loggers.check(OmegaConf.create({**CONFIG, "logger": {"wandb": taken}}))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("WANDB_MODE", "foo", "W&B refuses mode .*WANDB_MODE.*'online'"), ("WANDB_SILENT", "maybe", "valid boolean")],
)
def test_an_environment_that_wandb_refuses_is_one_line(name, value, message, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message) as refusal:
        loggers.check(OmegaConf.create(CONFIG))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mode", ["", None])
def test_without_a_usable_key_the_run_is_logged_offline(mode, online, run_folder, monkeypatch, capsys):
    def login(**_):
        raise wandb.errors.AuthenticationError("API key must have 40+ characters")

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.delenv("WANDB_MODE")
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    loggers.of_training(run_folder, CONFIG, 5)
    assert "API key must have" in capsys.readouterr().err
    assert [asked["mode"] for asked in online] == ["offline"]


# --- which loggers ---------------------------------------------------------------------------------------------------


def test_a_list_of_loggers_composes_alone_in_sweeps_and_over_a_saved_configuration():
    config = compose(["logger=[wandb,tensorboard]"])
    assert set(config.logger) == {"wandb", "tensorboard"}
    assert config.choices.logger == ["wandb", "tensorboard"]
    base = OmegaConf.to_container(config)
    assert compose_saved(base, []).choices.logger == ["wandb", "tensorboard"]
    csv_only = compose_saved(base, ["logger=csv"])
    assert (csv_only.choices.logger, csv_only.logger) == ("csv", {})
    base = OmegaConf.to_container(compose(["logger=csv"]))
    several = compose_saved(base, ["logger=[csv,tensorboard]"])
    assert set(several.logger) == {"tensorboard"}


def test_without_its_package_tensorboard_is_refused_with_the_command_that_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    for asked in ("logger=tensorboard", "logger=[wandb,tensorboard]"):
        with pytest.raises(RequestError, match=r"pip install '\.\[tensorboard\]'"):
            compose([asked])
    assert compose(["logger=csv"]).logger == {}
