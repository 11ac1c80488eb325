"""What an evaluation writes."""

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import made
from filelock import FileLock
from lightning.pytorch.loggers import Logger
from PIL import Image
from random_checkpoint import saved

from ddpm.commands.evaluate import evaluate
from ddpm.config.errors import RequestError
from ddpm.evaluation import results
from ddpm.figures import drawing
from ddpm.launch import Rank
from ddpm.metrics.fid import FrechetDistance
from ddpm.runs import folders

CPU = torch.device("cpu")


@pytest.mark.parametrize("keep", ["images", "npz"])
def test_samples_are_kept_on_request(workspace, keep):
    p, evaluation = made("evaluation.metrics=[fid]")
    measured = evaluation.run(p, Rank(0, 1, CPU), {}, workspace / "out")
    drawn = torch.cat(list(measured.samples()))
    assert np.array_equal(measured.pictures["samples"], drawing.grid(drawn[:100], 10))  # in the order of their numbers
    samples = drawn.permute(0, 2, 3, 1).numpy()
    measured.publish(workspace / "out", [], 0, keep)
    assert not (workspace / "out" / folders.UNFINISHED).exists()
    if keep == "npz":
        found = np.load(workspace / "out" / "samples.npz")["arr_0"]
    else:
        files = sorted((workspace / "out" / "images").iterdir())
        assert [files[0].name, files[-1].name] == ["000.png", "100.png"]
        found = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    assert found.dtype == np.uint8
    assert np.array_equal(found, samples)
    assert found.shape == (101, 8, 8, 1)


def test_two_evaluations_do_not_work_in_one_folder(workspace, monkeypatch):
    saved("a.ckpt", "debug=smoke")
    asked = ["ckpt=a.ckpt", "out=out", "evaluation.metrics=[fid]", "logger=csv"]
    monkeypatch.setattr(folders, "PATIENCE", 0.1)
    Path("out").mkdir()
    with FileLock("out/.lock"), pytest.raises(RequestError, match="another process is at work"):
        evaluate(asked)
    evaluate(asked)
    assert not folders.is_locked(Path("out"))  # it gives the folder back


def test_a_second_metric_joins_the_first(workspace):
    for metric in ("fid", "bits_per_dim"):
        p, evaluation = made(f"evaluation.metrics=[{metric}]")
        evaluation.run(p, Rank(0, 1, CPU), {}, workspace / "out").write(workspace / "out")
    content = json.loads((workspace / "out" / "results.json").read_text())
    assert set(content["metrics"]) == {"fid", "bits_per_dim"}
    assert set(content["real"]) == {"fid"}
    assert content["codecs"]["n"] == 101
    about = {"weights_sha256": content["weights_sha256"]}
    again = results.Results({"fid": {"value": 0.5}}, {"fid": {"value": 0.25}}, content["protocol"], about)
    again.write(workspace / "out")
    measured_anew = json.loads((workspace / "out" / "results.json").read_text())
    assert measured_anew["metrics"] == content["metrics"] | {"fid": {"value": 0.5}}
    assert measured_anew["real"] == {"fid": {"value": 0.25}}
    assert {"png", "webp"} <= set(content["codecs"]["lossless"])
    lines = (workspace / "out" / "rate_distortion.csv").read_text().splitlines()
    assert lines[0] == "reverse_step,t,rate_bits_per_dim,rmse"
    assert [line.split(",")[:2] for line in lines[1:]] == [[f"{21.0 - t}", f"{t}.0"] for t in range(1, 21)]


def test_the_verdict_of_a_metric_stays_with_it(workspace):
    protocol, about = {"fingerprint": "a"}, {"weights_sha256": "b"}
    for name in ("fid", "bits_per_dim", "fid"):
        verdict = {"metric": name, "verdict": "PASS"}
        results.Results({name: {"value": 3.0}}, {}, protocol, about, published=[verdict]).write(workspace)
    found = json.loads((workspace / "results.json").read_text())["published"]
    assert sorted(entry["metric"] for entry in found) == ["bits_per_dim", "fid"]


@pytest.mark.parametrize(
    "damaged",
    [{"metrics": 3}, {"real": "x"}, {"codecs": [1]}, {"published": 3}, {"published": [1, {"metric": ["fid"]}]}],
)
def test_what_is_of_the_wrong_kind_does_not_end_an_evaluation(workspace, damaged):
    protocol, about = {"fingerprint": "a"}, {"weights_sha256": "b"}
    before = {"metrics": {"kid": {"value": 1.0}}, "real": {}, "codecs": {}, "published": []}
    content = {**before, "protocol": protocol, **about, **damaged}
    (workspace / "results.json").write_text(json.dumps(content))
    results.Results({"fid": {"value": 3.0}}, {}, protocol, about).write(workspace)
    assert json.loads((workspace / "results.json").read_text())["metrics"]["fid"] == {"value": 3.0}


MEASURED = {"ckpt": "/x/last.ckpt", "step": 6, "metrics": {"fid_test": {}, "precision": {}, "bits_per_dim": {}}}


@pytest.mark.parametrize(
    ("content", "asked", "expected"),
    [
        (MEASURED, ["fid", "precision_recall", "bits_per_dim"], True),
        (MEASURED, ["fid", "inception_score"], False),
        (MEASURED | {"metrics": {"fid": {}}}, ["bits_per_dim"], False),
        (MEASURED | {"step": 5}, ["fid"], False),
        (MEASURED | {"ckpt": "/x/best.ckpt"}, ["fid"], False),
        (MEASURED | {"metrics": 3}, ["fid"], False),
        (MEASURED | {"metrics": [1, None]}, ["fid"], False),
        ({}, ["fid"], False),
        ([], ["fid"], False),
    ],
)
def test_whether_a_checkpoint_has_been_measured(workspace, content, asked, expected):
    (workspace / "results.json").write_text(json.dumps(content))
    assert results.has_measured(Path("/y/last.ckpt"), 6, workspace, asked) == expected


@pytest.mark.parametrize("other", ["seed=2", "evaluation.seed=2"])
def test_what_other_weights_or_another_protocol_gave_does_not_stay(workspace, other):
    for metric, settings in (("bits_per_dim", []), ("fid", [other])):
        p, evaluation = made(f"evaluation.metrics=[{metric}]", *settings)
        evaluation.run(p, Rank(0, 1, CPU), {}, workspace / "out").write(workspace / "out")
    assert set(json.loads((workspace / "out" / "results.json").read_text())["metrics"]) == {"fid"}


@pytest.mark.parametrize("channels", [1, 3])
def test_kept_samples_are_upright_and_have_their_colours(workspace, channels):
    samples = torch.randint(256, (13, channels, 4, 5), dtype=torch.uint8)
    expected = samples.permute(0, 2, 3, 1).numpy()
    for kind, keep in results.KEEPERS.items():
        (workspace / kind).mkdir()
        keep(workspace / kind, iter(samples.split(5)), 13)
    assert np.array_equal(np.load(workspace / "npz/samples.npz")["arr_0"], expected)
    for k, picture in enumerate(expected):
        kept = np.asarray(Image.open(workspace / f"images/images/{k:02d}.png"))
        assert np.array_equal(kept.reshape(picture.shape), picture)


def test_codecs_stand_below_the_bound_and_say_what_they_counted(capsys):
    bound = {"value": 3.25, "stderr": 0.02, "n": 9, "split": "test", "rate": 2.0, "distortion": 1.25, "prior": 0.0}
    png = {"title": "PNG", "value": 4.5, "each": 4.75, "each_with_overhead": 6.125, "together": 4.5,
           "overhead_bytes": 69.0}  # fmt: skip
    found = {"split": "test", "n": 9, "lossless": {"png": png}, "lossy": {}, "pillow": "13.0"}
    metrics = {"bits_per_dim": bound, "kid": {"value": 0.01, "std": 0.001, "n": 9}}
    protocol = {"fingerprint": "abc", "data": "mnist", "timesteps": 10}
    results.Results(metrics, {}, protocol, {}, codecs=found).print()
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("│ PNG")]
    (model,) = [line for line in printed.splitlines() if line.startswith("│ model")]
    assert row.index("4.5000") == model.index("3.2500")  # in the column of the bound
    words = " ".join(printed.split())
    assert "PNG 69" in words
    assert "PNG 4.7500 (6.1250 with these bytes)" in words


def test_the_table_has_as_many_digits_as_each_metric_deserves(capsys):
    metrics = {"fid": {"value": 3.14159, "n": 9}, "kid": {"value": 0.00271828, "std": 0.001, "n": 9}}
    real = {"fid": {"value": 0.57721, "n": 9}}
    results.Results(metrics, real, {"fingerprint": "abc", "data": "mnist"}, {}).print()
    printed = capsys.readouterr().out
    assert "3.142" in printed
    assert "3.1415" not in printed
    assert "0.00272 ± 0.00100" in printed
    assert "0.577" in printed


@pytest.mark.parametrize(("stderr", "said"), [(0.25, "0.5000 ± 0.2500 bits/dim"), (math.nan, "0.5000 bits/dim")])
def test_the_gap_of_one_image_has_no_error(stderr, said):
    bound = {"value": 3.0, "stderr": stderr, "n": 1, "split": "test", "rate": 2.0, "distortion": 1.0, "prior": 0.0}
    metrics = {"bits_per_dim": bound, "bits_per_dim_gap": {"value": 0.5, "stderr": stderr}}
    made = results.Results(metrics, {}, {"fingerprint": "abc", "data": "mnist", "timesteps": 10}, {})
    assert f"test less train: {said}" in made.notes()


def test_brackets_in_what_is_said_beside_the_table_stay(capsys):
    """The terminal's library takes them for its markup, and would leave them out."""
    published = {"metric": "fid", "published": 3.2, "source": "a paper [1]", "verdict": "other settings [bold]"}
    made = results.Results({"fid": {"value": 3.0, "n": 9}}, {}, {"fingerprint": "abc", "data": "mine [cyan]"}, {})
    made.published = [published]
    made.print()
    printed = capsys.readouterr().out
    assert "a paper [1]" in printed
    assert "other settings [bold]" in " ".join(printed.split())
    assert [note for note in made.notes() if " ".join(note.split()) not in " ".join(printed.split())] == []


def test_what_lies_beside_the_numbers_takes_no_link_s_way_and_is_whole(workspace):
    """A link of a picture's or a table's name is replaced, and the file that it led to stays as it was."""
    elsewhere = workspace / "elsewhere"
    elsewhere.write_text("mine")
    (workspace / "out").mkdir()
    for name in ("samples.png", "bound.csv", "rate_distortion.csv"):
        (workspace / "out" / name).symlink_to(elsewhere)
    curves = {key: [1.0, 2.0] for key in ("t", "term", "term_stderr", "rate_bits_per_dim", "rmse")}
    made = results.Results({}, {}, {"fingerprint": "abc"}, {}, curves, {"samples": Image.new("L", (2, 2), 7)})
    made.write(workspace / "out")
    assert elsewhere.read_text() == "mine"
    assert (workspace / "out/bound.csv").read_text() == "t,term,term_stderr\n1.0,1.0,1.0\n2.0,2.0,2.0\n"
    with Image.open(workspace / "out/samples.png") as picture:
        assert np.array_equal(picture, np.full((2, 2), 7))
    assert not list((workspace / "out").glob(".*"))


@pytest.mark.parametrize("keep", ["images", "npz"])
def test_samples_that_could_not_be_kept_to_the_last_leave_those_of_before(workspace, keep):
    samples = torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4)

    def kept() -> dict[str, bytes]:
        return {str(path.relative_to(workspace)): path.read_bytes() for path in workspace.rglob("*") if path.is_file()}

    def broken():
        yield 255 - samples[:2]
        raise OSError(errno.ENOSPC, "No space left on device")

    results.KEEPERS[keep](workspace, iter(samples.split(2)), 4)
    before = kept()
    with pytest.raises(OSError, match="No space left"):
        results.KEEPERS[keep](workspace, broken(), 4)
    assert kept() == before
    results.KEEPERS[keep](workspace, iter(samples.flip(0).split(2)), 4)
    assert kept().keys() == before.keys()
    assert kept() != before


class Told(Logger):
    """A logger that keeps what it is told."""

    name, version = "told", 0

    def __init__(self):
        super().__init__()
        self.told = []

    def log_metrics(self, metrics, step=None):
        self.told.append((metrics, step))

    def log_hyperparams(self, *_): ...


def test_loggers_are_told_each_number_and_its_error_under_names_of_their_own():
    logger = Told()
    metrics = {
        "fid": {"value": 3.5, "n": 9, "reference": "test"},
        "kid": {"value": 0.25, "std": 0.125, "n": 9},
    }
    results.Results(metrics, {}, {}, {}).log([logger], 7)
    assert logger.told == [({"evaluation/fid": 3.5, "evaluation/kid": 0.25, "evaluation/kid_std": 0.125}, 7)]


@pytest.mark.parametrize("count", [5, 6])
def test_more_than_five_metrics_stand_below_each_other(count, capsys):
    names = ("inception_score", "fid", "kid", "precision", "recall", "fid_test")[:count]
    metrics = {name: {"value": 1.0, "std": 0.5, "n": 9} for name in names}
    metrics["bits_per_dim_gap"] = {"value": 1.0, "stderr": 0.5}  # which stands in the notes alone
    results.Results(metrics, {}, {"fingerprint": "abc"}, {}).print()
    heading = next(line for line in capsys.readouterr().out.splitlines() if "model" in line)
    assert ("1.000" in heading) == (count == 5)


@pytest.mark.parametrize(
    ("extractor", "sampler", "said"),
    [
        ("digits", {"name": "ddim", "eta": 0.5}, "digits, which compares with itself only; sampler: ddim, eta 0.5"),
        ("inception", {"name": "unipc", "order": 3}, "inception; sampler: unipc"),
    ],
)
def test_a_note_says_by_what_samples_were_drawn_and_looked_at(extractor, sampler, said):
    counts = {"evaluations_per_sample": 50, "timesteps": 1000, "fingerprint": "abc"}
    protocol = {**counts, "features": {"extractor": extractor}, "sampler": sampler}
    protocol |= {"condition": {"name": "label", "classes": 10}, "guidance": {"name": "cfg", "scale": 2.0}}
    metrics = {"fid": {"value": 3.5, "n": 5000, "reference": "train", "reference_n": 50_000}}
    assert results.Results(metrics, {}, protocol, {}, of_samples=[FrechetDistance()]).notes() == [
        "FID: 5,000 samples against 50,000 images of the train split",
        f"features: {said}, 50 of 1000 steps",
        "condition of samples: name label, classes 10",
        "guidance of samples: name cfg, scale 2.0",
        "protocol abc",
    ]


@pytest.mark.parametrize("verdict", ["PASS", "FAIL", "another sampler"])
def test_what_was_published_stands_beside_what_was_measured_where_they_compare(verdict, capsys):
    entry = {"metric": "fid", "published": 3.17, "source": "a paper", "measured": 3.26, "tolerance": 0.3}
    results.Results({}, {}, {"fingerprint": "abc"}, {}, published=[{**entry, "verdict": verdict}]).print()
    said = "not held against it: another sampler"
    if verdict != "another sampler":
        said = f"measured 3.26, tolerance 0.3: {verdict}"
    assert said in " ".join(capsys.readouterr().out.split())
