"""When a checkpoint is written, and what may differ where a run goes on from one. Without a process of its own."""

import csv
import io
import math
import os
import signal
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from commands import EXTENSIBLE
from omegaconf import OmegaConf

from ddpm.checkpoints import checkpoint, safe_reading
from ddpm.commands.train import train
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.data.module import DataModule
from ddpm.evaluation.evaluation import Evaluation
from ddpm.processes import StoppedError
from ddpm.training import resume
from ddpm.training.checkpointing import SIGNALS, Checkpointing, Signals
from ddpm.training.module import DiffusionModule
from ddpm.training.monitor import Monitor


def test_a_checkpoint_is_written_when_due_or_best_and_after_the_validation_of_its_step(workspace, monkeypatch):
    written, write = [], checkpoint.write

    def watched(content, file):
        written.append((content["global_step"], content["pending"], list(bounds(workspace / "run"))))
        write(content, file)

    monkeypatch.setattr(checkpoint, "write", watched)
    every = "every={log: 1, validation: 2, samples: 100, checkpoint: 3}"
    train(["experiment=table2_eps_simple", *EXTENSIBLE, every, "max_steps=7", "out=run"])
    found = bounds(workspace / "run")
    best = [step for step, bound in found.items() if bound < min([math.inf, *(found[k] for k in found if k < step)])]
    assert 0 < len(best) < 3
    assert written == [(step, False, [k for k in (2, 4, 6) if k <= step]) for step in sorted({3, 6, 7, *best})]
    assert checkpoint.load(workspace / "run/checkpoints/best.ckpt").step == best[-1]
    previous = checkpoint.load(workspace / "run/checkpoints/previous.ckpt")
    assert (previous.step, checkpoint.load(workspace / "run").step) == (6, 7)


def test_the_best_checkpoint_is_found_again_and_gone_on_from(workspace, capsys):
    train([*EXTENSIBLE, "every.validation=3", "max_steps=3", "out=run"])
    best = workspace / "run/checkpoints/best.ckpt"
    best.unlink()  # as if the run had been killed when last.ckpt was written, and best.ckpt was not yet
    train(["resume=run", "max_steps=5"])
    assert (checkpoint.load(best).step, checkpoint.load("run").step) == (3, 5)
    assert best.read_bytes() != (workspace / "run/checkpoints/last.ckpt").read_bytes()
    capsys.readouterr()
    train(["resume=run", "which=best", "max_steps=4"])
    assert "going on from step 3" in capsys.readouterr().out
    assert (checkpoint.load(best).step, checkpoint.load("run").step) == (3, 4)
    torch.save({**torch.load(best, weights_only=True), "monitor": [3]}, best)
    with pytest.raises(RequestError, match="wrong kind"):
        train(["resume=run", "which=best"])


def owes_its_validation(file):
    """The last.ckpt of a run that validated at this step for the first time, as a signal before that leaves it."""
    torch.save({**torch.load(file, weights_only=True), "pending": True, "monitor": None}, file)


def test_the_best_is_kept_of_the_step_whose_validation_was_made_up_for(run_folder, monkeypatch):
    (run_folder / "checkpoints/best.ckpt").unlink()
    owes_its_validation(run_folder / "checkpoints/last.ckpt")
    steps = []
    monkeypatch.setattr("ddpm.training.module.log_by_t", lambda *arguments: steps.append(arguments[-1]))
    see = Monitor.see
    monkeypatch.setattr(Monitor, "see", lambda monitor, step, value: see(monitor, step, float(step)))  # ever worse
    train(["resume=run", "max_steps=13"])
    best = checkpoint.load(run_folder / "checkpoints/best.ckpt")
    assert best.monitor["best_step"] == best.step == 6
    assert steps == [6, 12]  # of the terms of the bound by t, which are logged beside it


def test_a_validation_that_is_made_up_for_and_ends_the_run_has_the_last_pictures(workspace):
    few = "every={log: 1, validation: 2, samples: 100, checkpoint: 2}"
    train([*EXTENSIBLE, few, "ema.decay=0", "max_steps=4", "out=run"])
    (workspace / "run/samples/step_0000004.png").unlink()
    last = workspace / "run/checkpoints/last.ckpt"
    owes_its_validation(last)
    content = torch.load(last, weights_only=True)
    monitor = checkpoint.load(workspace / "run/checkpoints/previous.ckpt").monitor
    assert monitor["step"] == 2
    torch.save({**content, "monitor": monitor}, last)
    train(["resume=run", "max_steps=9", "stop.patience=1", "stop.min_delta=100"])
    assert checkpoint.load("run").step == 4
    assert (workspace / "run/samples/step_0000004.png").exists()


FID = "validation/fid_20_samples"
MEASURED = [*EXTENSIBLE, "features=digits", "evaluation.chunk=20", "out=run"]


def test_a_metric_of_samples_is_followed_at_the_steps_at_which_it_is_measured(workspace):
    """Every other validation measures none, and is nothing to the best nor to the patience."""
    every = "every={log: 1, validation: 2, metrics: 4, samples: 100, checkpoint: 100}"
    train([*MEASURED, every, "best.metric=fid", "max_steps=10"])
    measured = logged(workspace / "run", FID)
    assert list(measured) == [4, 8]
    monitor = checkpoint.load("run").monitor
    assert (monitor["metric"], monitor["step"]) == (FID, 8)
    assert monitor["best_step"] == min(measured, key=measured.get)
    assert checkpoint.load(workspace / "run/checkpoints/best.ckpt").step == monitor["best_step"]


@pytest.fixture
def handlers():
    """This puts back the handlers of the signals that a training hears."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(
    ("owner", "begins", "missing"),
    [
        (DiffusionModule, "on_validation_epoch_start", "validation/bits_per_dim_16_timesteps"),
        (DataModule, "train_subset_dataloader", "validation/train_bits_per_dim_16_timesteps"),
        (Evaluation, "measure_samples", FID),
    ],
)
def test_a_signal_is_heard_in_all_that_takes_time_in_a_validation(
    owner, begins, missing, workspace, monkeypatch, handlers
):
    begin = getattr(owner, begins)

    def told_to_stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return begin(*arguments)

    monkeypatch.setattr(owner, begins, told_to_stop)
    with pytest.raises(StoppedError, match="saved at step 2"):
        train([*MEASURED, "every={log: 1, validation: 2, metrics: 2, samples: 100, checkpoint: 100}"])
    assert checkpoint.load("run").pending
    assert not logged(workspace / "run", missing)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_the_exit_code_says_which_signal_ended_the_run(signum, code, monkeypatch):
    signals = Signals(Checkpointing(Path("nowhere"), 1, 1))
    monkeypatch.setattr(signals.checkpointing, "save", lambda *_, **__: None)
    trainer = L.Trainer(accelerator="cpu", logger=False)
    signals.check(trainer)  # there is none yet
    signals._note(signum, None)
    with pytest.raises(StoppedError) as stopped:
        signals.check(trainer)
    assert stopped.value.code == code


def test_a_checkpoint_is_read_once_and_what_was_checked_is_gone_on_with(workspace, monkeypatch):
    train([*EXTENSIBLE, "max_steps=3", "out=run"])
    read, files, contents = safe_reading.read, [], []

    def once(file):
        files.append(file.name)
        contents.append(read(file))
        file.write_bytes(b"another file since")
        return contents[-1]

    monkeypatch.setattr(safe_reading, "read", once)
    train(["resume=run", "max_steps=5"])
    assert files == [checkpoint.LAST]
    assert contents == [{}]  # freed while training went on
    monkeypatch.undo()
    assert checkpoint.load(workspace / "run").step == 5


def bounds(run):
    """The validations in metrics.csv: held-out bound by step."""
    return logged(run, "validation/bits_per_dim_16_timesteps")


def logged(run, name):
    """A metric in metrics.csv, by step."""
    with (run / "metrics.csv").open() as rows:
        return {int(row["step"]): float(row[name]) for row in csv.DictReader(rows) if row.get(name)}


def test_a_second_ctrl_c_is_not_noted_but_raised(capsys):
    signals = Signals(Checkpointing(Path("nowhere"), 1, 1))
    signals._note(signal.SIGTERM, None)
    assert (signals.received, capsys.readouterr().err) == (signal.SIGTERM, "")
    signals = Signals(Checkpointing(Path("nowhere"), 1, 1))
    signals._note(signal.SIGINT, None)
    assert signals.received == signal.SIGINT
    assert capsys.readouterr().err == "saving; Ctrl-C again stops at once, without\n"
    with pytest.raises(KeyboardInterrupt):
        signals._note(signal.SIGINT, None)
    signals._process = 0  # a worker that reads data hears the terminal, too
    signals._note(signal.SIGINT, None)


def test_a_second_ctrl_c_counts_while_the_first_is_answered(monkeypatch):
    signals = Signals(Checkpointing(Path("nowhere"), 1, 1))

    class Impatient(io.StringIO):
        def write(self, text):
            signals._note(signal.SIGINT, None)

    monkeypatch.setattr(sys, "stderr", Impatient())
    with pytest.raises(KeyboardInterrupt):
        signals._note(signal.SIGINT, None)


@pytest.mark.parametrize(("accumulate", "batches"), [(1, 5), (4, 20)])
def test_a_run_goes_on_at_the_step_of_its_checkpoint(accumulate, batches):
    callback, content = Checkpointing(Path("nowhere"), 1, 1), {"global_step": 5, "pending": True}
    trainer = L.Trainer(accelerator="cpu", logger=False, accumulate_grad_batches=accumulate, max_steps=9)
    callback.on_load_checkpoint(trainer, L.LightningModule(), content)
    assert (callback.step, callback.pending) == (5, True)
    loops = content["loops"]["fit_loop"]
    assert loops["epoch_loop.batch_progress"]["total"]["completed"] == batches
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    assert optimizer["step"]["total"]["completed"] == optimizer["zero_grad"]["total"]["completed"] == 5


def test_a_run_may_be_at_its_end_and_not_past_it(workspace):
    config = compose(["max_steps=9"])
    base = OmegaConf.to_container(config)
    assert resume.check(base, config, workspace, step=9) == []
    with pytest.raises(RequestError, match=r"max_steps=9: .* is at step 10 already"):
        resume.check(base, config, workspace, step=10)


def test_what_differs_is_told_leaf_by_leaf_and_a_flag_from_a_number():
    old = {"choices": {"network": "unet", "sampler": "ddim"}, "network": {"channels": 8}, "a": {"b": 1, "c": 2.0}}
    new = {"choices": {"network": "mlp", "sampler": "ddim"}, "network": {"width": 8}, "a": {"b": True, "c": 2}, "d": 0}
    assert list(resume.differences(old, new)) == [("network", "unet", "mlp"), ("a.b", 1, True), ("d", None, 0)]
