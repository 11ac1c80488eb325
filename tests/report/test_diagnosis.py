"""`ddpm diagnose` on curves that are written here, one fault in each, and (slow) on runs in which it was planted."""

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import ROOT

from ddpm.__main__ import main
from ddpm.report import collect, diagnosis
from ddpm.report.run import ReportedRun

sys.path.append(str(ROOT / "benchmarks"))
import planted_faults as planted

BOUND, SEEN = "validation/bits_per_dim_16_timesteps", "validation/train_bits_per_dim_16_timesteps"
SETTINGS = {
    "max_steps": 1000,
    "schedule": {"T": 1000},
    "optimizer": {"lr": 3e-3, "warmup": 100, "grad_clip": 1.0},
    "ema": {"decay": 0.99},
    "evaluation": {},
}
STEPS = np.arange(10, 1001, 10)


def written(folder, steps=STEPS, **columns):
    """A run folder: a row every ten steps of curves that are functions of the step; validations every hundred steps.

    What is not said is a healthy run's: a loss that is soon at a tenth, a bound that falls and flattens.
    """
    healthy = {
        "train/loss": lambda step: 0.09 + 0.9 * math.exp(-step / 40) + 0.02 * math.sin(step),
        "train/gradient_norm": lambda step: 0.2 + 2.5 * math.exp(-step / 40),
        "train/data_wait": lambda step: 0.01,
        BOUND: lambda step: 5.0 + 3.0 * math.exp(-step / 200),
        SEEN: lambda step: 4.95 + 3.0 * math.exp(-step / 200),
    }
    settings = {key: value for key, value in columns.items() if not callable(value)}
    curves = healthy | {key: value for key, value in columns.items() if callable(value)}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS | settings))
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", *curves])
        for step in steps:
            due = [name.startswith("train/") or step % 100 == 0 for name in curves]
            rows.writerow([step, *(f(step) if here else "" for f, here in zip(curves.values(), due, strict=True))])
    return folder


def said(folder):
    """The names of what is found, and all of the text."""
    [run] = collect.within([folder])
    found = diagnosis.findings(run)
    return [each.name for each in found], " ".join(map(str, found))


def slowly(step):
    return 1.0 - 0.4 * step / 1000 + 0.06 * (step == 20)  # batches scatter


FAULTS = {
    "diverged": {},
    "learning rate too high": {"train/loss": lambda step: 1.3 if 20 < step < 60 else 0.9 - 0.6 * step / 1000},
    "learning rate too low": {"train/loss": slowly, "train/gradient_norm": lambda step: 2.6 - step / 2000},
    "no warm-up": {
        "train/loss": lambda step: 1.3 if 20 < step < 60 else 0.9 - 0.6 * step / 1000,
        "optimizer": {"lr": 3e-3, "warmup": 0},
    },
    "too few steps": {BOUND: lambda step: 9.0 - 3 * step / 1000},
    "memorising": {
        BOUND: lambda step: 6.0 + abs(step - 300) / 200,
        SEEN: lambda step: 4.0 + 3.0 * math.exp(-step / 400),
    },
    "average too long": {"ema": {"decay": 0.9999}},
    "the average got worse": dict.fromkeys((BOUND, SEEN), lambda step: 5.0 if step < 800 else 7.0),
    "waits for data": {"train/data_wait": lambda step: 0.9},
}


def test_nothing_looks_wrong_with_a_healthy_run(workspace, capsys):
    written(workspace / "run")
    assert said(workspace / "run") == ([], "")
    assert main(["diagnose", "run"]) == 0
    assert capsys.readouterr().out == f"{workspace / 'run'}: finished\n  nothing looks wrong\n"


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_no_other(workspace, name):
    folder = written(workspace / "run", **FAULTS[name])
    if name == "diverged":
        (folder / "diverged_step_0000123.safetensors").touch()
    assert said(folder)[0] == [name]


def test_notes_beside_what_a_diverged_run_leaves_are_not_read(workspace):
    folder = written(workspace / "run", **FAULTS["diverged"])
    for name in ("diverged_step_0000123", "diverged_step_notes"):
        (folder / f"{name}.safetensors").touch()
    found, text = said(folder)
    assert found == ["diverged"]
    assert "step 123" in text


def test_every_rule_has_its_fault():
    assert {name.replace(" ", "_").replace("-", "").removeprefix("the_") for name in FAULTS} == {
        rule.__name__ for rule in diagnosis.RULES
    }


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("diverged", ["the gradient of step 12,345 was not finite", "diverged_step_0012345.safetensors"]),
        ("learning rate too high", ["from 0.894 to 1.3 at step 30", "Try a tenth of optimizer.lr=0.003"]),
        ("learning rate too low", ["from 0.996 to 0.618 only", "Try ten times optimizer.lr=0.003"]),
        ("too few steps", ["7.500 bits/dim at step 500, 6.000 at step 1,000", "max_steps=2000"]),
        ("memorising", ["from step 300 to 1,000", "rose from 6.000 to 9.500", "fell from 5.417 to 4.246"]),
        ("average too long", ["to 90% made of the initial weights after 1,000 steps", "39,119 steps", "decay=0.97"]),
        ("the average got worse", ["was 5.000 bits/dim at step 100 and is 7.000"]),
        ("waits for data", ["90% of the time"]),
    ],
)
def test_facts_are_those_of_the_curves(workspace, name, facts):
    folder = written(workspace / "run", **FAULTS[name])
    if name == "diverged":
        for step in ("0000123", "0012345", "0012345 (copy)"):
            (folder / f"diverged_step_{step}.safetensors").touch()
    _, text = said(folder)
    assert [fact for fact in facts if fact not in text] == []


@pytest.mark.parametrize(
    "name", ["learning rate too high", "learning rate too low", "diverged", "the average got worse"]
)
def test_both_learning_rates_are_named_where_there_are_two(workspace, name):
    optimizer = {"lr": 3e-3, "muon_lr": 0.02, "warmup": 100, "grad_clip": 1.0}
    folder = written(workspace / "run", **FAULTS[name], optimizer=optimizer)
    if name == "diverged":
        (folder / "diverged_step_0000123.safetensors").touch()
    found, text = said(folder)
    assert found == [name]
    assert "optimizer.lr=0.003 and optimizer.muon_lr=0.02" in text


@pytest.mark.parametrize("warmup", [0, 100])
@pytest.mark.parametrize("scatter", [0.02, 0.05])  # less than `SCATTERED` of the loss, and more
def test_single_spikes_and_the_scatter_of_batches_are_harmless(workspace, warmup, scatter):
    def spiky(step):
        return 5.0 if step == 500 else 0.09 + 0.9 * math.exp(-step / 40) + scatter * (step % 30 == 0)

    folder = written(workspace / "run", **{"train/loss": spiky}, optimizer={"lr": 3e-3, "warmup": warmup})
    assert said(folder)[0] == []


def test_losses_that_scatter_as_those_of_the_bound_say_nothing_one_by_one(workspace):
    def scattered(step):
        return 0.005 * math.exp(1.5 * math.sin(step * step))

    for name, warmup in (("late", 100), ("cold", 0)):
        folder = written(workspace / name, **{"train/loss": scattered}, optimizer={"lr": 3e-3, "warmup": warmup})
        [run] = collect.within([folder])
        assert max(run.history[diagnosis.LOSS][1]) > diagnosis.SPIKE * run.history[diagnosis.LOSS][1][0]
        assert said(folder)[0] == []


def test_a_loss_that_scatters_from_the_middle_on_is_not_judged(workspace):
    def later_scattered(step):
        return (1.3 if 20 < step < 60 else 0.9) if step < 600 else 0.3 + 0.6 * (step % 20 == 0)

    assert said(written(workspace / "run", **{"train/loss": later_scattered}))[0] == []


@pytest.mark.parametrize(("warmup", "found"), [(300, ["learning rate too low"]), (400, [])])
def test_a_learning_rate_that_rose_for_a_third_of_the_run_is_not_called_low(workspace, warmup, found):
    optimizer = {"lr": 3e-3, "warmup": warmup}
    assert said(written(workspace / "run", **FAULTS["learning rate too low"], optimizer=optimizer))[0] == found


@pytest.mark.parametrize("name", ["learning rate too high", "learning rate too low", "no warm-up"])
def test_a_run_whose_learning_rate_is_wrong_is_not_told_to_be_longer(workspace, name):
    assert said(written(workspace / "run", **FAULTS[name], **FAULTS["too few steps"]))[0] == [name]


def finished(**curves):
    """A run of which only the settings, a loss that falls in time and these curves are known."""
    loss = {diagnosis.LOSS: (STEPS.tolist(), (0.1 + 0.9 * np.exp(-STEPS / 40)).tolist())}
    return ReportedRun(Path("run"), "finished", config=SETTINGS, history=loss | curves)


@pytest.mark.parametrize(
    ("steps", "bound", "found"),
    [
        ([100, 500, 1000], [6.0, 1.083, 1.0], True),  # by 8.3 % of what it is now
        ([100, 500, 1000], [6.0, 1.077, 1.0], False),
        ([250, 1000], [1.15, 1.0], False),  # 15 % in two doublings of the steps
        ([250, 1000], [1.17, 1.0], True),
        ([600, 1000], [6.0, 1.0], False),  # of half the steps nothing is known
    ],
)
def test_the_bound_of_a_run_that_was_long_enough_falls_by_less_than_8_percent_per_doubling(steps, bound, found):
    run = finished(**{BOUND: ([float(step) for step in steps], bound)})
    assert bool(diagnosis.too_few_steps(run)) == found


def test_a_bound_is_compared_with_those_of_an_average_that_has_forgotten_the_initial_weights(workspace):
    """With ema.decay=0.99 the initial weights are below 2 % of the average from step 390 on."""
    untrained = dict.fromkeys((BOUND, SEEN), lambda step: 5.0 if step < 390 else 7.0)
    assert said(written(workspace / "run", **untrained))[0] == []


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([0.9, 0.05, 0.25], False),  # the first holds the start of the workers
        ([0.0, 0.05, 0.05, 0.05, 0.9], False),  # one pause, of a disk, say
        ([0.0, 0.3, 0.3, 0.1, 0.1, 0.3], True),
    ],
)
def test_waiting_for_data_is_judged_by_the_median_after_the_start(shares, found):
    run = finished(**{"train/data_wait": ([10.0 * k for k in range(len(shares))], shares)})
    assert bool(diagnosis.waits_for_data(run)) == found


@pytest.mark.parametrize("steps", [20, 45, 130, 700, 2999, 3000, 12_345, 800_000, 3_000_000])
def test_the_decay_that_is_advised_forgets_the_initial_weights_in_time(steps):
    """Half of the average is of the last 3 % of the run, or of 6,931 steps."""
    loss = {diagnosis.LOSS: ([float(steps)], [1.0])}
    run = ReportedRun(Path("run"), "finished", config={"ema": {"decay": 0.999999999}}, history=loss)
    found = diagnosis.average_too_long(run)
    decay = float(found.advice.rpartition("ema.decay=")[2])
    assert 0 < decay < 1
    assert decay**steps < 0.02
    assert math.log(0.5) / math.log(decay) == pytest.approx(min(max(1, 0.03 * steps), 6931), rel=0.02)


def test_a_slow_loss_with_a_flat_gradient_is_not_for_a_low_learning_rate(workspace):
    assert said(written(workspace / "run", **{"train/loss": slowly}))[0] == []


def test_a_loss_that_rises_at_the_end_is_found(workspace):
    def rising(step):
        return 0.1 + 0.9 * math.exp(-step / 40) + (0.4 if step > 850 else 0.0)

    assert said(written(workspace / "run", **{"train/loss": rising}))[0] == ["learning rate too high"]


def test_a_run_that_is_not_finished_is_not_told_to_be_longer(workspace):
    folder = written(workspace / "run", **FAULTS["too few steps"], max_steps=5000)
    assert said(folder)[0] == []


def test_the_average_of_a_run_that_goes_on_has_time_to_forget(workspace):
    fault = {"ema": {"decay": 0.9975}}  # 8 % after 1,000 steps
    assert said(written(workspace / "short", **fault))[0] == ["average too long"]
    assert said(written(workspace / "long", **fault, max_steps=5000))[0] == []


def test_too_little_to_judge_by_is_said(workspace, capsys):
    written(workspace / "run", steps=STEPS[:19])
    main(["diagnose", "run"])
    assert "19 losses are logged, and 20 are needed" in capsys.readouterr().out


def test_twenty_losses_are_enough_to_judge_by(workspace, capsys):
    written(workspace / "run", steps=STEPS[:20], max_steps=200, **{"train/data_wait": lambda step: 0.9})
    main(["diagnose", "run"])
    assert "waits for data" in capsys.readouterr().out


def test_what_cannot_be_read_is_said_and_no_crash(workspace, capsys):
    (folder := workspace / "run").mkdir()
    (folder / "config.yaml").write_text("optimizer: 3\nema: [1]\nschedule: {T: many}\nstop: {patience: x}\n")
    (folder / "metrics.csv").write_text("step,train/loss\n" + "".join(f"{k},{1 / k}\n" for k in range(1, 30)) + "x,y\n")
    assert main(["diagnose", "run"]) == 0
    assert "metrics.csv is damaged from line 31" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fall", "found"), [(40, []), (400, ["learning rate too low"]), (-2e4, ["learning rate too low"])]
)
def test_a_loss_that_stays_above_a_quarter_is_judged_by_when_it_fell(tmp_path, fall, found):
    """The loss of v-prediction ends at a third of what it is for a network that predicts nothing."""
    curves = {
        "train/loss": lambda step: 0.28 + 0.55 * math.exp(-step / fall) + 0.01 * math.sin(step),
        "train/gradient_norm": lambda step: 0.2 + 0.3 * math.exp(-step / fall),
    }
    assert said(written(tmp_path / "run", **curves))[0] == found


def test_a_run_that_stopped_early_says_so(workspace, capsys):
    bound = {BOUND: lambda step: 5.0 + abs(step - 600) / 1000}
    patient = {"stop": {"patience": 2, "min_delta": 0.0}, "best": {"metric": "bound"}, "validation": {}}
    written(workspace / "run", steps=STEPS[:80], **bound, **patient)
    main(["diagnose", "run"])
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.endswith(
        f"finished (stopped early at step 800: {BOUND} has not improved in 2 validations (stop.patience=2); the best "
        "was 5 at step 600)"
    )


def test_patience_that_ends_with_the_run_has_not_ended_it(workspace, capsys):
    bound = {BOUND: lambda step: 5.0 + abs(step - 800) / 1000}
    patient = {"stop": {"patience": 2, "min_delta": 0.0}, "best": {"metric": "bound"}, "validation": {}}
    written(workspace / "run", **bound, **patient)
    main(["diagnose", "run"])
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.endswith("finished")


@pytest.mark.slow
@pytest.mark.parametrize("name", planted.PLANTED)
def test_a_planted_fault_is_found(workspace, name, capsys):
    planted.write_few(workspace / "few")
    found = diagnosis.findings(planted.planted(name, workspace / "run"))
    assert [each.name for each in found] == ([] if name == "nothing" else [name])
    assert ("learned by heart" in capsys.readouterr().err) == (name == "memorising")
