"""When a checkpoint is written, and what may differ where a run goes on from one. Without a process of its own."""

import csv
import math
import signal
from pathlib import Path

import lightning as L
import pytest
import torch
from commands import SMALL_RUN
from omegaconf import OmegaConf

from ddpm.checkpoints import checkpoint, safe_reading
from ddpm.commands.train import train
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.training import resume
from ddpm.training.checkpointing import Checkpointing, Signals


def test_a_checkpoint_is_written_when_due_or_best_and_after_the_validation_of_its_step(workspace, monkeypatch):
    written, write = [], checkpoint.write

    def watched(content, file):
        written.append((content["global_step"], content["pending"], list(bounds(workspace / "run"))))
        write(content, file)

    monkeypatch.setattr(checkpoint, "write", watched)
    every = "every={log: 1, validation: 2, samples: 100, checkpoint: 3}"
    train(["experiment=table2_eps_simple", *SMALL_RUN, every, "max_steps=7", "logger=csv", "out=run"])
    found = bounds(workspace / "run")
    best = [step for step, bound in found.items() if bound < min([math.inf, *(found[k] for k in found if k < step)])]
    assert 0 < len(best) < 3
    assert written == [(step, False, [k for k in (2, 4, 6) if k <= step]) for step in sorted({3, 6, 7, *best})]
    assert checkpoint.load(workspace / "run/checkpoints/best.ckpt").step == best[-1]
    previous = checkpoint.load(workspace / "run/checkpoints/previous.ckpt")
    assert (previous.step, checkpoint.load(workspace / "run").step) == (6, 7)


def test_the_best_checkpoint_is_found_again_and_gone_on_from(workspace, capsys):
    train([*SMALL_RUN, "every.validation=3", "max_steps=3", "logger=csv", "out=run"])
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


def test_a_checkpoint_is_read_once_and_what_was_checked_is_gone_on_with(workspace, monkeypatch):
    train([*SMALL_RUN, "max_steps=3", "logger=csv", "out=run"])
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
    with (run / "metrics.csv").open() as rows:
        name = "validation/bits_per_dim_16_timesteps"
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
