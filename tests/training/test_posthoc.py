"""ema=posthoc: averages of any length afterwards, held against averages of all the weights of a run in float64."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from commands import EXTENSIBLE
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save
from torch import nn
from torture import content

import ddpm
from ddpm.checkpoints import checkpoint, snapshots
from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.commands import evaluate, export
from ddpm.config.errors import RequestError
from ddpm.evaluation import protocol
from ddpm.runs import records
from ddpm.training.averages import PowerFunctionAverages

STEPS, LENGTHS = 40, [0.02, 0.05, 0.15]
RUN = [*EXTENSIBLE, f"max_steps={STEPS}", "every={validation: 100, samples: 100, checkpoint: 25}"]
MEASURED = ["logger=csv", "evaluation.metrics=[fid]"]


class Weights(Callback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, module, *_):
        self.after.append({name: value.clone() for name, value in module.p.network.state_dict().items()})


def directly(after, gamma):
    """The average of weights that are in proportion to step^gamma, integrated over each step, in float64."""
    ends = (torch.arange(len(after) + 1, dtype=torch.float64) / len(after)) ** (gamma + 1)
    return {
        name: sum(share * weights[name].double() for share, weights in zip(ends.diff(), after, strict=True))
        for name in after[0]
    }


def exponent(length):
    """gamma by bisection of sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))."""
    low, high = 0.0, 1e5
    for _ in range(200):
        middle = (low + high) / 2
        longer = (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > length**2
        low, high = (middle, high) if longer else (low, middle)
    return low


def flat(weights):
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with snapshots, and its weights after every step."""
    folder, weights = tmp_path_factory.mktemp("posthoc"), Weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ddpm.train(*RUN, "ema=posthoc", "out=run", callbacks=[weights])
    return folder / "run", weights.after


@pytest.fixture
def run(trained, workspace):
    """A copy of it, `run` in the current directory."""
    shutil.copytree(trained[0], workspace / "run")
    return workspace / "run"


@pytest.mark.parametrize("length", [0.02, 0.03, 0.05, 0.1, 0.15, 0.2])
def test_an_average_of_any_length_is_that_of_all_weights(trained, length):
    run, after = trained
    found = snapshots.average(saved := checkpoint.load(run), saved.weights, LENGTHS, length)
    expected = directly(after, exponent(length))
    last, mean = flat(after[-1]), flat(expected)
    rounding = 2**-11 * last.norm()  # of snapshots, in float16
    assert (flat(found) - mean).norm() < 0.02 * (last - mean).norm() + rounding
    if length in LENGTHS:  # the average is in the checkpoint itself
        assert (flat(found) - mean).norm() < 1e-6 * last.norm()


def test_the_exponential_average_is_what_it_would_have_been(trained, workspace):
    """Snapshots change no number of the run; and it is what an evaluation measures that asks for nothing else."""
    ddpm.train(*RUN, "out=plain")
    plain, posthoc = content(workspace / "plain")["state_dict"], content(trained[0])["state_dict"]
    assert plain.keys() == {name for name in posthoc if not name.startswith("power_averages.")}
    assert all(torch.equal(value, posthoc[name]) for name, value in plain.items())
    assert not (workspace / "plain" / "averages").exists()
    for said in ([], ["ema=exponential"]):
        found = ddpm.load(trained[0], *said).network.state_dict()
        assert all(torch.equal(value, plain[f"p_ema.network.{name}"]) for name, value in found.items())
    with pytest.raises(RequestError, match=r"its exponential average alone; train with ema=posthoc"):
        ddpm.load("plain", "ema=0.05")


def test_few_snapshots_are_kept_and_they_are_small(trained):
    files = sorted((trained[0] / "averages").iterdir())
    assert [int(file.stem.removeprefix("step_")) for file in files] == [10, 11, 13, 16, 19, 23, 27, 32, 38]
    numbers = sum(value.numel() for value in ddpm.load(trained[0]).network.state_dict().values())
    assert all(file.stat().st_size < 2 * len(LENGTHS) * numbers + 60_000 for file in files)


def test_averages_are_not_trained():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    averages = PowerFunctionAverages(network, LENGTHS)
    assert not any(weight.requires_grad for weight in averages.parameters())
    assert not any(each.training for each in averages.modules() if each is not averages)
    assert all(weight.requires_grad for weight in network.parameters())


def test_noise_is_averaged_as_the_profiles_say(tmp_path):
    """Weights that are anew at each step leave of two averages' difference just the distance of their profiles."""
    steps, draw, after = 306, torch.Generator().manual_seed(0), []
    network = nn.Linear(100, 200, bias=False)
    averages = PowerFunctionAverages(network, LENGTHS)
    for step in range(1, steps + 1):
        network.weight.data = torch.randn(network.weight.shape, generator=draw)
        after.append({"weight": network.weight.data})
        averages.update(list(network.parameters()), step)
        if snapshots.is_due(step):
            snapshots.write(tmp_path, step, averages.state_dict())
    file = tmp_path / "checkpoints" / "last.ckpt"
    (tmp_path / "config.yaml").touch()
    checkpoint.write({"state_dict": {f"{snapshots.PREFIX}{k}": v for k, v in averages.state_dict().items()}}, file)
    saved = Checkpoint(file, {}, {"weight": network.weight.data}, steps)
    kept = [91, 108, 128, 152, 181, 215, 256]  # 304 is too near, 76 too long ago

    def profile(t, gamma):
        return np.diff((np.minimum(np.arange(steps + 1), t) / t) ** (gamma + 1))

    for length in (0.018, 0.035, 0.08, 0.2):
        wanted = profile(steps, exponent(length))
        known = np.stack([profile(t, exponent(each)) for t in (*kept, steps) for each in LENGTHS], 1)
        nearest = known @ np.linalg.lstsq(known, wanted, rcond=None)[0]
        found = snapshots.average(saved, saved.weights, LENGTHS, length)["weight"].double()
        missed = (found - directly(after, exponent(length))["weight"]).square().mean().sqrt()
        assert float(missed) == pytest.approx(np.linalg.norm(nearest - wanted), rel=0.05, abs=2e-4), length


def test_a_snapshot_is_due_at_steps_that_depend_on_nothing_else():
    due = [step for step in range(1, 200) if snapshots.is_due(step)]
    assert due == sorted({round(2 ** (k / 4)) for k in range(31)})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ema=0.26", r"cannot be made of the averages .* step 40: choose a length from 0.01\d to 0.2\d\d?"),
        ("ema=0.3", "a number from 0.005 to 0.288"),
        ("ema=posthoc", "must be a number, the length .* or exponential"),
        ("ema=", "must be a number"),
        ("ema.lengths=[0.1]", "cannot change after training"),
        ("ema.length=0.1", "there is no setting 'ema.length'"),
    ],
)
def test_what_cannot_be_made_is_told(run, said, message):
    before = sorted(run.rglob("*"))
    with pytest.raises(RequestError, match=message):
        evaluate.evaluate(["ckpt=run", *MEASURED, said])
    assert sorted(run.rglob("*")) == before


def test_damaged_snapshots_are_refused_and_missing_ones_shorten_the_reach(run):
    saved = checkpoint.load(run)
    file = sorted((run / "averages").iterdir())[-2]
    whole, tensors = file.read_bytes(), load_file(file)
    first = next(iter(tensors))
    wild = {**tensors, first: tensors[first] * float("nan")}
    for content_, message in [
        (whole[:-100], "cut short"),
        (save({first: tensors[first]}), r"does not hold the averages of this run: \d+ missing"),
        (save({**tensors, first: tensors[first][:0]}), r"does not hold the averages of this run: 1 of another shape"),
        (save(wild), "not finite"),
    ]:
        file.write_bytes(content_)
        with pytest.raises(ValueError, match=message):
            snapshots.average(saved, saved.weights, LENGTHS, 0.1)
    with pytest.raises(RequestError, match="not finite"):
        evaluate.evaluate(["ckpt=run", *MEASURED, "ema=0.1"])
    shutil.rmtree(run / "averages")
    with pytest.raises(ValueError, match=r"choose a length from .* or from"):
        snapshots.average(saved, saved.weights, LENGTHS, 0.08)


@pytest.mark.slow
def test_lengths_are_one_table(run, workspace):
    assert evaluate.main(["-m", "ckpt=run", *MEASURED, "ema=exponential,0.1"]) == 0
    folder = (workspace / "runs/sweeps/latest").resolve()
    cells = records.within(folder)
    with (folder / "report.csv").open() as file:
        assert [row["ema"] for row in csv.DictReader(file)] == ["exponential", "0.1"]
    first, second = (json.loads((cell.folder / "results.json").read_text()) for cell in cells[:2])
    assert first["protocol"]["weights"] == "exponential moving average"
    assert second["protocol"]["weights"] == "power-function average, sigma_rel 0.1"
    assert first["weights_sha256"] != second["weights_sha256"]
    weights = snapshots.average(saved := checkpoint.load("run"), saved.weights, LENGTHS, 0.1)
    loaded = ddpm.load("run", "ema=0.1")
    assert all(torch.equal(value, weights[name]) for name, value in loaded.network.state_dict().items())
    assert protocol.digest_of_weights(loaded) == second["weights_sha256"]


def test_an_exported_average_says_which_it_is(run, workspace):
    export.export(["ckpt=run", "to=exported", "format=safetensors", "ema=0.05"])
    ours = snapshots.average(saved := checkpoint.load(run), saved.weights, LENGTHS, 0.05)
    theirs = ddpm.load("exported", "ema=0.05").network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    for other, message in (("ema=0.1", "not in a run's folder"), ("ema=exponential", "one average .* of ema=0.05")):
        with pytest.raises(RequestError, match=message):
            ddpm.load("exported", other)


def test_a_snapshot_of_another_step_than_its_name_says_is_refused(run):
    shutil.copy(run / "averages/step_0000023.safetensors", run / "averages/step_0000032.safetensors")
    with pytest.raises(
        RequestError, match=r"step_0000032\.safetensors holds the averages of step 23, not of the step in"
    ):
        ddpm.load(run, "ema=0.05")
