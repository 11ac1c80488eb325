"""Training in trainer.precision=16-mixed, which Lightning has for GPUs alone; here it is made to take it on the CPU.

The loss is multiplied by a scale so that small gradients are not lost in float16, and steps whose gradients overflow
are skipped. https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling
"""

import csv
import math

import pytest
import torch
from commands import EXTENSIBLE
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector
from omegaconf import OmegaConf
from torch.amp import GradScaler

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.commands.train import train
from ddpm.config.errors import RequestError

STEPS = 6
SETTINGS = [
    *(*EXTENSIBLE, "evaluate_after=false", "every.log=1"),
    *("optimizer.grad_clip=0.9", "optimizer.warmup=1", "optimizer.muon_lr=null"),
    *(f"max_steps={STEPS}", "trainer.precision=32-true"),
]
OVERFLOWS = 2.0**60


@pytest.fixture
def in_float16(monkeypatch):
    """Make trainings those of 16-mixed, with this scale of the loss at first."""

    def of(scale):
        monkeypatch.setattr(
            _AcceleratorConnector,
            "_check_and_init_precision",
            lambda _: MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=scale)),
        )

    return of


def trained(run, *settings):
    """What was logged by step, and the checkpoint."""
    train([*SETTINGS, f"out={run}", *settings])
    return logged(run), content(run)


def logged(run):
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return {int(row["step"]): float(row["train/gradient_norm"]) for row in rows if row["train/gradient_norm"]}


def content(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def moments(checkpoint):
    return checkpoint["optimizer_states"][0]["state"].values()


def test_the_scale_of_the_loss_changes_neither_norm_nor_step(in_float16, workspace):
    """The norm is logged, and cut at `grad_clip`, without the scale."""
    whole, whole_end = trained(workspace / "whole")
    in_float16(2.0**16)
    half, half_end = trained(workspace / "half")
    assert half == pytest.approx(whole, rel=5e-3)
    assert half.keys() == set(range(1, STEPS + 1))
    for key in ("exp_avg", "exp_avg_sq"):
        mine, expected = (torch.cat([state[key].ravel() for state in moments(end)]) for end in (half_end, whole_end))
        assert (mine - expected).norm() < 0.02 * expected.norm()
    assert half_end["MixedPrecision"]["_growth_tracker"] == STEPS  # none was skipped


@pytest.mark.parametrize("muon_lr", ["null", "0.02"])
def test_steps_that_overflow_are_skipped_and_a_run_of_them_goes_on(muon_lr, in_float16, workspace):
    in_float16(OVERFLOWS)
    _, end = trained(workspace / "run", f"optimizer.muon_lr={muon_lr}")
    assert len(end["optimizer_states"][0]["param_groups"]) == (1 if muon_lr == "null" else 2)
    assert not any(state["step"] or state["exp_avg"].any() for state in moments(end))
    assert end["MixedPrecision"]["scale"] == OVERFLOWS / 2**STEPS
    train([f"resume={workspace / 'run'}", f"max_steps={2 * STEPS}"])
    assert content(workspace / "run")["MixedPrecision"]["scale"] == OVERFLOWS / 4**STEPS


def test_stopped_and_resumed_it_is_the_same_run(in_float16, workspace):
    in_float16(2.0**16)
    _, whole = trained(workspace / "whole")
    trained(workspace / "cut", "max_steps=3")
    in_float16(2.0**10)  # the checkpoint's scale counts
    train([f"resume={workspace / 'cut'}", f"max_steps={STEPS}"])
    cut = content(workspace / "cut")
    assert cut["MixedPrecision"] == whole["MixedPrecision"]
    assert all(torch.equal(value, whole["state_dict"][key]) for key, value in cut["state_dict"].items())


def test_a_scale_of_the_wrong_kind_is_refused(in_float16, workspace):
    in_float16(2.0**16)
    _, found = trained(workspace / "run", "max_steps=1")
    config = OmegaConf.create(checkpoint.load(workspace / "run").config)
    images = build.dataset(config)
    module = build.module(config, images)
    skip_for_ever = {"scale": 2.0**101}, {"scale": 1e-45}, {"backoff_factor": 1.0}, {"growth_factor": 0.0}
    for change in (
        *({"scale": "large"}, {"scale": math.nan}, {"scale": 0.0}, {"growth_interval": 2.5}, {"more": 1.0}),
        *(*skip_for_ever, {"growth_interval": 1}, {"_growth_tracker": 10**12}, {"_growth_tracker": -1}),
        None,
    ):
        crafted = {**found, "MixedPrecision": change and found["MixedPrecision"] | change}
        torch.save(crafted, workspace / "run/checkpoints/last.ckpt")
        with pytest.raises(ValueError, match=r"scale of the loss|lacks what training needs"):
            build.check_resumed(checkpoint.newest(workspace / "run"), module, images)
    with pytest.raises(RequestError, match=r"scale of the loss|lacks what training needs"):
        train([f"resume={workspace / 'run'}", "max_steps=2"])
