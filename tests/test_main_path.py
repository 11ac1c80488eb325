"""The commands of the README, at debug=smoke, each as a user starts it: a process in an empty directory."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from commands import ROOT, Fork, run, run_anew
from PIL import Image

SMOKE = ["debug=smoke", "logger=csv"]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished smoke run, with its output."""
    cwd = tmp_path_factory.mktemp("user")
    return cwd, run("train.py", *SMOKE, cwd=cwd)


def test_training_leaves_a_complete_run_folder(trained):
    cwd, done = trained
    folder = cwd / "runs" / "latest"
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == f"run folder: {folder.resolve()}"
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert {path.name for path in (folder / "samples").iterdir()} == {"step_0000003.png", "step_0000006.png"}
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    assert list(losses) == [2, 4, 6]
    assert all(0.7 < loss < 1.3 for loss in losses.values())  # a network that says nearly 0 of noise of variance 1
    assert 1 < float(rows[-1]["validation/bits_per_dim_16_timesteps"]) < 40
    assert min(pixels(folder / "samples" / "step_0000006.png").shape[:2]) >= 8 * 48


def test_a_checkpoint_is_tensors_and_plain_containers(trained):
    content = torch.load(trained[0] / "runs/latest/checkpoints/last.ckpt", weights_only=True)
    assert content["global_step"] == 6
    assert content["config"]["choices"]["objective"] == "simple"
    raw = {key: value for key, value in content["state_dict"].items() if key.startswith("p.network.")}
    averaged = {key.replace("p.", "p_ema.", 1): value for key, value in raw.items()}
    assert averaged.keys() <= content["state_dict"].keys()
    assert any(not torch.equal(value, content["state_dict"][key]) for key, value in averaged.items())


def test_evaluation_measures_and_repeats_itself_on_any_number_of_processes(trained):
    cwd, _ = trained
    done = run("evaluate.py", "ckpt=runs/latest", *SMOKE, "out=one process", cwd=cwd)
    assert "17 of 256 gray levels" in done.stdout
    run("evaluate.py", f"ckpt={cwd}/runs/latest/checkpoints/last.ckpt", *SMOKE, "out=two", "trainer=ddp",
        "trainer.devices=2", cwd=cwd)  # fmt: skip
    one, two = (json.loads((cwd / out / "results.json").read_text()) for out in ("one process", "two"))
    assert one["protocol"] == two["protocol"]
    assert set(one["metrics"]) == {"inception_score", "fid", "bits_per_dim"}
    for name, parts in one["metrics"].items():
        for part, value in parts.items():
            expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-9)
            assert two["metrics"][name][part] == expected, (name, part)
    pictures = [pixels(cwd / out / "samples.png") for out in ("one process", "two")]
    assert np.array_equal(*pictures)
    bits = one["metrics"]["bits_per_dim"]
    assert bits["value"] == pytest.approx(bits["rate"] + bits["distortion"])


def test_training_on_two_processes_takes_the_same_steps(trained, tmp_path):
    run("train.py", *SMOKE, "trainer=ddp", "trainer.devices=2", cwd=tmp_path)
    weights = [
        torch.load(cwd / "runs/latest/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for cwd in (trained[0], tmp_path)
    ]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-4, atol=1e-5, msg=key)
    assert len(list((tmp_path / "runs" / "digits").iterdir())) == 1


@pytest.mark.slow
def test_torchrun_starts_the_same_job(trained, tmp_path):
    """Ranks that a launcher outside of Lightning starts, as on several machines: one folder, the same numbers."""
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run("-m", *launch, str(ROOT / "train.py"), *SMOKE, "trainer=ddp", "trainer.devices=2", "out=run", cwd=tmp_path)
    run("-m", *launch, str(ROOT / "evaluate.py"), f"ckpt={trained[0]}/runs/latest", "trainer=ddp", "trainer.devices=2",
        *SMOKE, "evaluation.metrics=[fid]", "out=evaluated", cwd=tmp_path)  # fmt: skip
    one, two = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (trained[0] / "runs/latest", tmp_path / "run")
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5, msg=key)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"run", "runs", "evaluated"}
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name != "latest"] == ["statistics"]
    assert json.loads((tmp_path / "evaluated/results.json").read_text())["metrics"]["fid"]["n"] == 40


def test_a_sweep_ends_in_a_table(tmp_path):
    axes = ["objective=simple,vlb,hybrid", "+trainer.devices=1"]
    run("train.py", "-m", *SMOKE, *axes, cwd=tmp_path, code=2)  # nothing to append to
    assert not (tmp_path / "runs").exists()
    done = run("train.py", "-m", *SMOKE, axes[0], cwd=tmp_path)
    folder = tmp_path / "runs" / "sweeps" / "latest"
    with (folder / "report.csv").open() as file:
        rows = {row["objective"]: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "simple": "finished", "vlb": "finished", "hybrid": "refused",
    }  # fmt: skip
    assert "variance=learned_range" in rows["hybrid"]["reason"]
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("*/results.json"))]
    for name, found in zip(("simple", "vlb"), results, strict=True):
        assert float(rows[name]["FID"]) == pytest.approx(found["metrics"]["fid"]["value"], rel=1e-3)
    assert rows["simple"]["protocol"] == rows["vlb"]["protocol"]
    assert "report:" in done.stdout
    assert "bits/dim" in (folder / "report.md").read_text()
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5  # samples and progressive strips of both, and their data once
    assert set(re.findall(r'<g class="line" data-line="(\d)"', page)) == {"0", "1"}  # curves of those that ran
    run("-m", "ddpm", "report", str(folder), "out=again", cwd=tmp_path)
    with (tmp_path / "again/report.csv").open() as file:
        assert [row["FID"] for row in csv.DictReader(file)] == [row["FID"] for row in rows.values()]
    assert not (tmp_path / "multirun").exists()
    assert not (tmp_path / "runs" / "latest").exists()


@pytest.mark.parametrize(
    ("start", "script", "arguments", "message"),
    [
        (run_anew, "train.py", ["objectiv=vlb"], "did you mean objective"),
        (run, "train.py", ["loader.batch_size=5000"], "1500 training examples"),
        (run, "train.py", ["-m", "objective=simpel,vlb"], "did you mean simple"),
        (run, "evaluate.py", ["ckpt=half.ckpt"], "cut short"),
        (run, "evaluate.py", ["ckpt=code.ckpt"], "refused"),
        (run, "evaluate.py", ["ckpt=run.ckpt", "evaluation.num_samples=9"], "10 or more"),
    ],
)
def test_a_wrong_request_of_a_real_process_is_one_line_and_writes_nothing(
    trained, workspace, start, script, arguments, message
):
    last = trained[0] / "runs/latest/checkpoints/last.ckpt"
    (workspace / "run.ckpt").write_bytes(last.read_bytes())
    (workspace / "half.ckpt").write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    torch.save({"state_dict": Hostile()}, workspace / "code.ckpt")
    before = sorted(workspace.rglob("*"))
    done = start(script, *arguments, cwd=workspace, code=2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert sorted(workspace.rglob("*")) == before


class Hostile:
    """Would leave a file behind if it were unpickled."""

    def __reduce__(self):
        return open, ("hostile was here", "w")


def test_an_existing_run_is_never_overwritten(trained, workspace):
    target = workspace / "a run, with = and [brackets]"
    Fork("train.py", *SMOKE, f"out={target}", cwd=workspace).wait()
    config = (target / "config.yaml").read_bytes()
    assert "is not empty" in run("train.py", *SMOKE, f"out={target}", cwd=workspace, code=2).stderr
    assert (target / "config.yaml").read_bytes() == config
    Fork("evaluate.py", f"ckpt={target}", *SMOKE, cwd=workspace).wait()
