"""What is left to the machine (`auto`), and the switches that change speed alone."""

import csv
import platform
import shutil
import subprocess
import sys

import pytest
import torch
from commands import Fork
from omegaconf import OmegaConf

from ddpm import build, hardware, launch
from ddpm.config.compose import compose
from ddpm.config.saved import compose_saved, plain
from ddpm.networks.unet import UNet
from ddpm.training import resume

TINY = [
    "network.channels=8",
    "network.groups=4",
    "loader.batch_size=16",
    "schedule.T=20",
    "sampler.steps=5",
    "logger=csv",
]
TINY += ["every={log: 1, validation: 100, samples: 100, checkpoint: 100}"]


@pytest.fixture
def machine(monkeypatch):
    """A function that makes the machine multiply bfloat16 or not."""
    monkeypatch.setattr(hardware, "device_type", lambda accelerator: "cpu")
    return lambda able: monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda device: able)


def settled(*overrides):
    config = compose(overrides)
    launch.resolve_precision(config)
    return config.trainer.precision


def test_precision_is_what_the_machine_multiplies_fast_unless_said_otherwise(machine):
    for able, expected in ((True, "bf16-mixed"), (False, "32-true")):
        machine(able)
        assert settled("recipe=cifar10") == settled("recipe=lsun_church", "trainer=ddp") == expected
        assert settled("recipe=cifar10", "trainer.precision=32-true") == "32-true"


def test_the_precision_is_that_of_the_device_that_was_asked_for(monkeypatch):
    """On a machine whose GPU multiplies bfloat16 and whose CPU does not, a run on the CPU stays in float32."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: gpu)
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda device: device == "cuda")
    found = [settled("recipe=cifar10", f"trainer.accelerator={each}") for each in ("auto", "gpu", "cpu")]
    assert found == ["bf16-mixed", "bf16-mixed", "32-true"]


@pytest.mark.parametrize("recipe", ["digits", "swiss_roll"])
def test_what_is_small_stays_in_float32_on_every_machine(machine, recipe):
    machine(True)
    assert settled(f"recipe={recipe}") == settled(f"recipe={recipe}", "trainer.devices=2") == "32-true"


@pytest.mark.parametrize(
    ("capable", "expected"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_a_cpu_without_the_instructions_multiplies_no_bfloat16(monkeypatch, capable, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert hardware.multiplies_bfloat16("cpu") is expected
    assert not hardware.multiplies_bfloat16("mps")


def test_a_run_says_and_keeps_its_precision(machine):
    machine(True)
    config = compose(["recipe=cifar10", "data=digits", "network.channel_mult=[1]", "network.channels=32"])
    launch.resolve_precision(config)
    module = build.module(config, build.dataset(config))
    assert build.summary(module, config).endswith("bf16-mixed")
    assert module.config["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.parametrize("words", [["trainer=ddp"], ["trainer.precision=auto"], ["trainer.devices=2"]])
def test_a_run_goes_on_in_its_precision_on_another_machine(workspace, machine, words):
    machine(True)
    config = compose(["recipe=cifar10", f"out={workspace / 'run'}"])
    launch.resolve_precision(config)
    (workspace / "run").mkdir()
    OmegaConf.save(config, workspace / "run" / "config.yaml")
    machine(False)
    for start in (["resume=run"], ["resume=auto", "recipe=cifar10", f"out={workspace / 'run'}"]):
        again, _ = resume.compose_resumable([*start, *words], {}.__getitem__)
        launch.resolve_precision(again)
        assert again.trainer.precision == "bf16-mixed"


def test_a_configuration_from_before_a_switch_was_there_takes_its_default():
    base = plain(compose([]))
    del base["trainer"]["compile"], base["trainer"]["resident"]
    config = compose_saved(base, [])
    assert (config.trainer.compile, config.trainer.resident) == (None, "auto")


FAULTS = """
import resource
import torch
from ddpm import hardware
if {keep}:
    hardware.keep_freed_memory()
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
@pytest.mark.slow
def test_what_a_step_frees_is_not_cleared_anew():
    without, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], check=True, capture_output=True).stdout)
        for keep in (False, True)
    )
    assert without > 300 > kept


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


@pytest.mark.slow
def test_the_layout_may_change_where_a_run_goes_on(workspace):
    Fork.train(*TINY, "max_steps=3", "optimizer.anneal=false", "out=whole", cwd=workspace).wait()
    shutil.copytree(workspace / "whole", workspace / "other")
    for folder, channels_last in (("whole", "false"), ("other", "true")):
        words = ["max_steps=12", f"trainer.channels_last={channels_last}", "trainer.resident=true"]
        Fork.train(f"resume={folder}", *words, cwd=workspace).wait()
    whole, other = losses(workspace / "whole"), losses(workspace / "other")
    assert len(whole) == 12
    torch.testing.assert_close(torch.tensor(other), torch.tensor(whole), rtol=1e-4, atol=0)


def test_without_a_compiler_compilation_is_refused(monkeypatch):
    monkeypatch.setattr(hardware.shutil, "which", lambda name: None)
    config = compose(["trainer.compile=default"])
    with pytest.raises(ValueError, match="needs a C"):
        build.module(config, build.dataset(config))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_is_the_same_function_under_the_same_names(workspace):
    words = [*TINY, "max_steps=3", "every.validation=3", "every.samples=3"]
    Fork.train(*words, "out=plain", cwd=workspace).wait()
    Fork.train(*words, "trainer.compile=default", "out=compiled", cwd=workspace).wait(timeout=1200)
    plain, compiled = (
        torch.load(workspace / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "compiled")
    )
    assert plain.keys() == compiled.keys()
    torch.testing.assert_close(torch.tensor(losses(workspace / "compiled")), torch.tensor(losses(workspace / "plain")))


def test_bf16_rounds_the_network_alone():
    """Its output differs from float32's by bfloat16's rounding and not by more."""
    torch.manual_seed(0)
    network = UNet(3, 3, 32, (1, 2), 1, (8,), 0.0, (16, 16))
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn_like(weights) / max(1, weights[0].numel()) ** 0.5)
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([0, 10, 100, 999])
    exact = network(x, t).detach()
    for prepare in (lambda: None, lambda: hardware.prepare_for_evaluation(network, bf16=True)):
        prepare()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            narrow = network(x, t).float()
        error = (narrow - exact).norm() / exact.norm()
        assert 1e-4 < error < 0.03
