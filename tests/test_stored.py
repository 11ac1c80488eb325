"""Runs, checkpoints and sweeps that an earlier version left load, evaluate, resume and are reported.

tests/stored/version_0_1 holds what that version wrote: runs of six steps of the digits and the Swiss roll with the
checkpoint of step 3 beside the last one, an exported model, and a sweep's folder without its checkpoints.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import Fork, run
from torture import assert_same, content

import ddpm
from ddpm.runs import records

STORED = Path(__file__).parent / "stored" / "version_0_1"


@pytest.fixture
def stored(workspace):
    for path in STORED.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, workspace / path.name)
    return workspace


@pytest.mark.parametrize("name", ["digits", "swiss_roll"])
def test_a_stored_run_is_evaluated_to_the_same_numbers(stored, name):
    before = json.loads((stored / name / "results.json").read_text())
    Fork("evaluate.py", f"ckpt={name}", "out=again", cwd=stored).wait()
    now = json.loads((stored / "again" / "results.json").read_text())
    assert now["protocol"]["fingerprint"] == before["protocol"]["fingerprint"]
    assert now["weights_sha256"] == before["weights_sha256"]
    for kind in ("metrics", "real"):
        assert now[kind].keys() == before[kind].keys()
        for metric, parts in before[kind].items():
            assert now[kind][metric] == {
                part: value if isinstance(value, str) else pytest.approx(value, rel=1e-4)
                for part, value in parts.items()
            }, metric


@pytest.mark.parametrize("name", ["digits", "swiss_roll"])
def test_a_stored_run_goes_on_to_the_same_weights(stored, name):
    last, folder = content(stored / name), stored / name / "checkpoints"
    (folder / "previous.ckpt").replace(folder / "last.ckpt")
    (stored / name / "results.json").unlink()
    printed = Fork.train(f"resume={name}", "evaluate_after=false", cwd=stored).wait()
    assert "going on from step 3" in printed
    now = content(stored / name)
    assert now["state_dict"].keys() == last["state_dict"].keys()
    for key, value in last["state_dict"].items():  # another CPU adds in another order
        torch.testing.assert_close(now["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    assert_same({key: now[key] for key in ("global_step", "pending", "lr_schedulers")},
                {key: last[key] for key in ("global_step", "pending", "lr_schedulers")})  # fmt: skip


def test_a_stored_run_keeps_what_it_began_with(stored):
    assert "batch_size=16 (was 32)" in Fork.train("resume=digits", "loader.batch_size=16", cwd=stored).wait(2)
    assert "decoder=exact (was tanh)" in Fork.train(
        "resume=digits", "max_steps=9", "evaluation.bits_per_dim.decoder=exact", cwd=stored
    ).wait(2)


def test_an_exported_model_of_an_earlier_version_loads(stored):
    p = ddpm.load("exported.safetensors")
    assert p.q.T == 20
    same = ddpm.load("digits").network.state_dict()
    assert all(torch.equal(value, same[key]) for key, value in p.network.state_dict().items())


def test_a_stored_sweep_is_reported_and_finished(stored):
    cells = records.within(stored / "sweep")
    assert [cell.status for cell in cells] == ["finished", "finished"]
    assert all("loader.batch_size=32" in cell.overrides for cell in cells)
    assert "simple" in run("-m", "ddpm", "report", "sweep", cwd=stored).stdout
    assert "0 to run" in Fork("train.py", "-m", "resume=sweep", cwd=stored).wait()
