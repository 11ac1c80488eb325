"""A run that is killed, stopped or starved at any moment and goes on is, to the bit, the run that was left alone."""

import functools
import random
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from commands import ROOT, Fork, Ranks
from PIL import Image
from safetensors.torch import load_file
from torture import assert_same, assert_same_run, content, metrics, reached, until

from ddpm.commands.evaluate import evaluate
from ddpm.runs import folders

SETTINGS = [
    "data=folder", "data.path=pictures", "data.size=[8,8]", "data.channels=1", "data.horizontal_flip=true",
    "loader.batch_size=16", "network.channels=8", "network.channel_mult=[1]", "network.groups=4",
    "network.dropout=0.1", "schedule.T=20",
    "timesteps=loss_second_moment", "+timesteps.history=2", "sampler.steps=5", "max_steps=18", "logger=csv",
    "every={log: 1, validation: 5, samples: 10, checkpoint: 3}", "condition=label", "condition.drop=0.3",
    "ema=posthoc", "evaluation.chunk=40",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with pictures of two classes to train on: 40, so that an epoch is two and a half steps."""
    cwd = tmp_path_factory.mktemp("user")
    draw = np.random.default_rng(0)
    for split, n in (("train", 40), ("test", 81)):
        for i in range(n):
            folder = cwd / "pictures" / split / ("odd" if i % 2 else "even")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    return cwd


@pytest.fixture(scope="module")
def whole(workplace):
    """The run that was left alone."""
    Fork("train.py", *SETTINGS, "out=whole", cwd=workplace).wait()
    return workplace / "whole"


# Two processes of one job, as a launcher outside of Lightning starts them.
Two = functools.partial(Ranks, "train.py", "trainer=ddp", devices=2)


def killed_again_and_again(workplace, whole, name, kills, seed, start=Fork.train, settings=SETTINGS):
    """Kill the run at `kills` moments: just begun, at a step, while validating or drawing, while saving."""
    folder, dice, done = workplace / name, random.Random(seed), 0
    last = max(metrics(whole)) - 1
    steps = sorted(dice.randint(1, last) for _ in range(kills))
    for number, step in enumerate(steps):
        process = start(*settings, f"out={name}", "resume=auto", cwd=workplace)
        moment = ("step", "saving", "validating", "beginning")[number % 4]
        if moment == "beginning":
            time.sleep(dice.uniform(0.1, 1.0))
        elif moment == "saving":
            until(reached(folder, step), process)
            until((folder / "checkpoints" / ".last.ckpt.part").exists, process)
        elif moment == "validating":
            until(reached(folder, min(last, -(-step // 5) * 5)), process)
            time.sleep(dice.uniform(0, 0.02))
        else:
            until(reached(folder, step), process)
            time.sleep(dice.uniform(0, 0.1))
        if process.running:
            process.send(signal.SIGKILL)
            process.wait(-signal.SIGKILL)
            done += 1
    start(*settings, f"out={name}", "resume=auto", cwd=workplace).wait()
    assert_same_run(folder, whole)
    return done


def test_killed_five_times_it_is_the_same_run(workplace, whole):
    assert killed_again_and_again(workplace, whole, "killed", kills=5, seed=1) == 5


@pytest.mark.slow
def test_two_processes_killed_twelve_times_are_the_same_run(workplace):
    parallel = [*SETTINGS, "trainer.accumulate=2"]
    Two(*parallel, "out=parallel_whole", cwd=workplace).wait()
    whole = workplace / "parallel_whole"
    assert killed_again_and_again(workplace, whole, "parallel_killed", 12, seed=4, start=Two, settings=parallel) >= 10


def test_two_processes_and_micro_batches(workplace, monkeypatch):
    """Killed and stopped in the middle of an epoch, on two processes that accumulate; it goes on with the same bits."""
    few = ["every.metrics=10", "validation.num_samples=20", "evaluation.chunk=8", "features=digits"]  # of 3 chunks
    parallel = [*SETTINGS, *few, "trainer.accumulate=2", "max_steps=12"]
    Two(*parallel, "out=parallel", cwd=workplace).wait()
    job = Two(*parallel, "out=stopped", cwd=workplace)
    until(reached(workplace / "stopped", 5), job)
    job.send(signal.SIGKILL)
    job.wait(-signal.SIGKILL)
    job = Two(*parallel, "out=stopped", "resume=auto", cwd=workplace)
    until(reached(workplace / "stopped", 8), job)
    job.forks[1].send(signal.SIGTERM)  # whichever rank hears it
    assert "goes on with" in job.forks[0].wait(143) + job.forks[1].wait(0)
    Two("resume=stopped", "trainer.accumulate=2", cwd=workplace).wait()
    assert_same_run(workplace / "stopped", workplace / "parallel")
    monkeypatch.chdir(workplace)
    found = content(workplace / "parallel", "best.ckpt")
    assert found["monitor"]["best_step"] == found["global_step"]
    measured = ["evaluation.metrics=[fid]", "evaluation.num_samples=20", "evaluation.chunk=8", "trainer=auto"]
    shutil.copytree("parallel", "measured")
    (workplace / "measured/checkpoints/last.ckpt").unlink()
    fid = evaluate(["ckpt=measured", "which=best", *measured]).metrics["fid"]["value"]
    logged = metrics(workplace / "parallel")[10]["validation/fid_20_samples"]
    assert float(logged) == pytest.approx(fid, rel=1e-4)  # of one process, by evaluate.py


def test_a_run_that_ends_early_is_the_same_however_it_came_there(workplace):
    """Killed, ended by its patience, and prolonged by a longer one, it is the run that had the longer one at once."""
    early = [
        *SETTINGS,
        "stop.min_delta=100",
        "ema.decay=0",
        "network.channel_mult=[1,1]",  # what halves and doubles the resolution goes on, too
        "every={log: 1, validation: 2, samples: 10, checkpoint: 3}",
    ]
    printed = Fork.train(*early, "stop.patience=3", "out=patient", cwd=workplace).wait()
    assert "stopped early at step 8: validation/bits_per_dim_16_timesteps has not improved by more than 100" in printed
    process = Fork.train(*early, "stop.patience=2", "out=early", cwd=workplace)
    until(reached(workplace / "early", 4), process)
    process.send(signal.SIGKILL)
    process.wait(-signal.SIGKILL)
    assert "stopped early at step 6" in Fork.train("resume=early", cwd=workplace).wait()
    assert (workplace / "early" / "samples" / "step_0000006.png").exists()  # of the last weights
    before = metrics(workplace / "early")
    assert "early is finished: stopped early at step 6" in Fork.train("resume=early", cwd=workplace).wait()
    assert metrics(workplace / "early") == before
    Fork.train("resume=early", "stop.patience=3", cwd=workplace).wait()
    for name in ("last.ckpt", "best.ckpt"):
        assert_same(content(workplace / "early", name), content(workplace / "patient", name))
    assert metrics(workplace / "early") == metrics(workplace / "patient")


@pytest.mark.slow
def test_two_processes_hear_a_signal_while_they_validate(workplace):
    slow = [*SETTINGS, "network.channels=64", "max_steps=6", "every={log: 1, validation: 5, samples: 6, checkpoint: 6}"]
    Two(*slow, "out=validated", cwd=workplace).wait()
    job = Two(*slow, "out=cut", cwd=workplace)
    until(reached(workplace / "cut", 5), job)
    job.forks[1].send(signal.SIGTERM)
    job.forks[0].wait(143)
    job.forks[1].wait(0)
    cut = content(workplace / "cut")
    assert cut["global_step"] == 5
    assert cut["pending"]
    Two("resume=cut", cwd=workplace).wait()
    assert_same_run(workplace / "cut", workplace / "validated")


def test_another_number_of_devices_takes_the_same_steps(workplace):
    """t, noise, flips, dropped labels and examples are those of the global batch: only float addition differs."""
    plain = [*SETTINGS, "network.dropout=0", "optimizer.anneal=false"]
    Fork("train.py", *plain, "max_steps=9", "out=one", cwd=workplace).wait()
    Two(*plain, "max_steps=5", "trainer.accumulate=4", "out=other", cwd=workplace).wait()
    others = ["max_steps=9", "trainer=auto", "trainer.accumulate=2"]
    printed = Fork("train.py", "resume=other", *others, cwd=workplace).wait()
    for change in ("max_steps=9 (was 5)", "trainer=auto (was ddp)"):
        assert change in printed
    one, other = (content(workplace / name)["state_dict"] for name in ("one", "other"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5, msg=key)
    one, other = (metrics(workplace / name) for name in ("one", "other"))
    assert one.keys() == other.keys()
    for step, row in one.items():
        assert row.keys() == other[step].keys()
        for key, value in row.items():
            assert float(other[step][key]) == pytest.approx(float(value), rel=1e-3), (step, key)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_twenty_times_it_is_the_same_run(workplace, whole, seed):
    assert killed_again_and_again(workplace, whole, f"killed_{seed}", kills=20, seed=seed) >= 18


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGUSR1, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_says_how_to_go_on(workplace, whole, signum, code):
    folder = workplace / f"signal_{signum}"
    process = Fork("train.py", *SETTINGS, f"out={folder.name}", cwd=workplace)
    until(reached(folder, 4), process)
    process.send(signum)
    *_, last = process.wait(code).strip().splitlines()
    assert last.endswith(f"goes on with: python {ROOT / 'train.py'} resume={folder}")
    assert content(folder)["global_step"] >= 4
    Fork("train.py", f"resume={folder.name}", cwd=workplace).wait()
    assert_same_run(folder, whole)


def test_a_second_ctrl_c_ends_at_once_and_saves_nothing(workplace):
    """The first Ctrl-C comes in the middle of a step that takes a minute, and waits for its end."""
    option = workplace / "conf" / "callbacks" / "long_step.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("long_step: {_target_: torture.LongStep}\n")
    long = ["--config-dir=conf", "callbacks=long_step", "trainer.accumulate=2", "every.checkpoint=1"]
    process, folder = Fork("train.py", *SETTINGS, *long, "out=twice", cwd=workplace), workplace / "twice"
    until((folder / "checkpoints" / "last.ckpt").exists, process)
    process.send(signal.SIGINT)
    until(lambda: "Ctrl-C again stops at once" in process.log.read_text(), process)
    process.send(signal.SIGINT)
    printed = process.wait(130)
    assert "Traceback" not in printed
    assert "saved at step" not in printed
    assert content(folder)["global_step"] == 1


def test_what_the_last_step_owes_is_paid_on_resuming(workplace):
    """A signal while the last pictures are drawn: they and the last validation are made up for."""
    option, waits = workplace / "conf" / "sampler" / "waiting.yaml", workplace / "waits"
    option.parent.mkdir(parents=True)
    option.write_text("{_target_: torture.Waiting, steps: null, spacing: uniform, times: null}\n")
    short = ["--config-dir=conf", "sampler=waiting", *SETTINGS, "max_steps=5"]
    Fork("train.py", *short, "out=short", cwd=workplace).wait()
    (workplace / "wait").touch()
    process = Fork("train.py", *short, "out=owing", cwd=workplace)
    until(waits.exists, process)
    process.send(signal.SIGTERM)
    waits.unlink()
    process.wait(143)
    assert content(workplace / "owing")["pending"]
    assert not (workplace / "owing" / "samples").exists()
    Fork("train.py", "--config-dir=conf", "resume=owing", cwd=workplace).wait()
    assert_same_run(workplace / "owing", workplace / "short")
    assert "is finished" in Fork("train.py", "--config-dir=conf", "resume=owing", cwd=workplace).wait()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(workplace, whole):
    process = Fork("train.py", *SETTINGS, "out=damaged", cwd=workplace)
    until(reached(workplace / "damaged", 8), process)
    process.send(signal.SIGKILL)
    process.wait(-signal.SIGKILL)
    last = workplace / "damaged" / "checkpoints" / "last.ckpt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    assert "warning:" in Fork("train.py", "resume=damaged", cwd=workplace).wait()
    assert_same_run(workplace / "damaged", whole)
    last.write_bytes(last.read_bytes()[:-100])
    last.with_name("previous.ckpt").write_bytes(b"PK")
    assert "cut short" in Fork("train.py", "resume=damaged", cwd=workplace).wait(2)


def test_other_images_are_refused(workplace, whole):
    shutil.copytree(whole, workplace / "elsewhere")
    (workplace / "elsewhere" / "checkpoints" / "last.ckpt").unlink()  # a finished run would not look at them
    shutil.copytree(workplace / "pictures", workplace / "more")
    even = workplace / "more" / "train" / "even"
    shutil.copy(even / "0.png", even / "one more.png")
    assert "trained on other images" in Fork("train.py", "resume=elsewhere", "data.path=more", cwd=workplace).wait(2)


def test_a_full_disk_ends_the_run_with_one_message_and_the_checkpoint_intact(workplace, whole):
    process = Fork("train.py", *SETTINGS, "out=full", cwd=workplace)
    until(reached(workplace / "full", 4), process)
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    printed = process.wait(1)
    assert "Traceback" not in printed
    assert "what was saved is intact" in printed.splitlines()[-1]
    assert not (workplace / "full" / "checkpoints" / ".last.ckpt.part").exists()
    Fork("train.py", "resume=full", cwd=workplace).wait()
    assert_same_run(workplace / "full", whole)


def test_an_evaluation_that_was_cut_off_is_made_up_for(workplace):
    after = [*SETTINGS, "max_steps=5", "evaluate_after=true", "evaluation.num_samples=2000", "evaluation.chunk=10"]
    process = Fork("train.py", *after, "out=evaluated", cwd=workplace)
    folder = workplace / "evaluated"
    until(reached(folder, 5), process)
    until(lambda: (folder / "checkpoints" / "last.ckpt").exists() and content(folder)["global_step"] == 5, process)
    until(lambda: any(folder.glob(f"{folders.UNFINISHED}/*/samples/*.npy")), process)
    process.send(signal.SIGKILL)
    process.wait(-signal.SIGKILL)
    assert not (folder / "results.json").exists()
    few = ["evaluation.num_samples=20", "evaluation.bits_per_dim.images=10"]
    Fork("train.py", "resume=evaluated", *few, cwd=workplace).wait()
    assert (folder / "results.json").exists()
    assert "is finished" in Fork("train.py", "resume=evaluated", *few, cwd=workplace).wait()


def test_numbers_that_are_not_finite_leave_the_batch_behind(workplace):
    process = Fork("train.py", *SETTINGS, "optimizer.lr=1e30", "optimizer.warmup=0", "out=wild", cwd=workplace)
    *_, last = process.wait(1).strip().splitlines()
    step = int(re.search(r"diverged at step (\d+): the gradient is not finite", last)[1])
    assert "t = " in last
    kept = load_file(workplace / "wild" / f"diverged_step_{step:07d}.safetensors")
    assert kept["batch"].shape == (16, 1, 8, 8)
    assert kept["t"].shape == kept["loss"].shape == kept["labels"].shape == (16,)
    assert not kept["gradient_norm"].isfinite()
