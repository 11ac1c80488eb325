"""Sweeps of real processes: every way in which a cell can end, and a sweep that is stopped and goes on."""

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from commands import ROOT, SMALL, Fork
from torture import assert_same_run, content, reached, until

from ddpm.runs import records

SHORT = [*SMALL, "evaluate_after=false"]
LONG = [*SHORT, "max_steps=30", "every={log: 1, validation: 15, samples: 20, checkpoint: 5}"]


class Sweep:
    """A sweep in the background."""

    def __init__(self, *overrides, cwd):
        self.fork, self.cwd = Fork("train.py", "-m", *overrides, cwd=cwd), cwd

    @property
    def folder(self):
        return (self.cwd / "runs/sweeps/latest").resolve()

    @property
    def running(self):
        return self.fork.running

    def cells(self):
        return {cell.name: cell for cell in records.within(self.folder)}

    def at_work(self):
        """The processes of the cells that are running: those that hold the lock of a cell's folder."""
        holders = set()
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                file = link.readlink()
                if file.name == ".lock" and file.parent.parent == self.folder:
                    holders.add(int(link.parts[2]))
        return sorted(holders)

    def until_step(self, name, step):
        assert within(150, lambda: name in self.cells() and reached(self.cells()[name].folder, step)(), self)


class AlwaysRunning:
    running = True


def within(seconds, happened, sweep):
    return until(happened, sweep, timeout=seconds, every=0.05)


def gone(pid):
    """Ended, whether or not anybody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
def test_cells_of_one_and_two_processes(tmp_path):
    """No cell leaks into the next: the same steps for any number of devices, in any order."""
    axes = ["trainer.devices=2,1", "variance=fixed_large,learned"]
    printed = Sweep(*SHORT, "trainer=ddp", *axes, cwd=tmp_path).fork.wait(timeout=300)
    found = records.within(tmp_path / "runs/sweeps/latest")
    ends = {(*(text.partition("=")[2] for text in cell.varying),): cell for cell in found}
    assert {key: cell.status for key, cell in ends.items()} == {
        (devices, variance): status
        for devices in "21" for variance, status in (("fixed_large", "finished"), ("learned", "refused"))
    }  # fmt: skip
    one, two = (content(ends[devices, "fixed_large"].folder)["state_dict"] for devices in "12")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-4
    assert not list(tmp_path.glob("runs/[!s]*"))  # whatever their ranks, runs lie in the sweep's folder
    assert "Traceback" not in printed


def test_stopped_it_goes_on_where_it_was(tmp_path):
    """Of three cells, one finished, one killed from outside, one stopped with the sweep; then a fourth is added."""
    sweep = Sweep(*LONG, "seed=1,2,3", cwd=tmp_path)
    sweep.until_step("seed=2", 10)
    [cell] = sweep.at_work()
    os.kill(cell, signal.SIGKILL)
    sweep.until_step("seed=3", 10)
    sweep.fork.send(signal.SIGINT)
    printed = sweep.fork.wait(130)
    folder, before = sweep.folder, sweep.cells()
    assert {name: cell.status for name, cell in before.items()} == {
        "seed=1": "finished", "seed=2": "failed", "seed=3": "interrupted",
    }  # fmt: skip
    assert "SIGKILL" in before["seed=2"].reason
    assert f"goes on with: python {ROOT / 'train.py'} -m resume={folder}" in printed
    assert content(before["seed=3"].folder)["global_step"] >= 10  # it saved
    finished = (before["seed=1"].folder / "config.yaml").stat().st_mtime_ns

    again = Sweep("seed=4,1,2,3", *reversed(LONG), f"resume={folder}", cwd=tmp_path)
    assert "3 to run" in again.fork.wait()
    assert again.folder == folder
    after = again.cells()
    assert {name: cell.status for name, cell in after.items()} == dict.fromkeys(
        ("seed=1", "seed=2", "seed=3", "seed=4"), "finished"
    )
    for name, cell in before.items():
        assert after[name].folder == cell.folder
        assert after[name].seconds >= cell.seconds
    assert (after["seed=1"].folder / "config.yaml").stat().st_mtime_ns == finished
    for seed in (2, 3):
        Fork("train.py", *LONG, f"seed={seed}", f"out=whole_{seed}", cwd=tmp_path).wait()
        assert_same_run(after[f"seed={seed}"].folder, tmp_path / f"whole_{seed}")


def test_a_cell_ends_with_its_sweep_and_saves(tmp_path):
    sweep = Sweep(*LONG, "seed=1,2", "max_steps=100000", cwd=tmp_path)
    sweep.until_step("seed=1", 15)
    [cell] = sweep.at_work()
    sweep.fork.send(signal.SIGKILL)
    sweep.fork.wait(-signal.SIGKILL)
    assert within(30, lambda: gone(cell), AlwaysRunning)
    assert content(sweep.cells()["seed=1"].folder)["global_step"] >= 15


def test_a_sweep_whose_cells_all_turn_out_to_be_wrong_was_a_wrong_request(tmp_path):
    printed = Sweep(*SHORT, "data=folder", "data.path=nowhere", "seed=1", cwd=tmp_path).fork.wait(2)
    assert "refused: there is nothing at" in printed


def tortured(cwd, kills, seed):
    """Kill the sweep, a cell of it, or both, at `kills` moments. Every cell must end as if it had been left alone."""
    settings, seeds = [*LONG, "evaluate_after=true", "max_steps=40"], range(1, 2 + kills // 2)
    command = [*settings, f"seed={','.join(map(str, seeds))},0"]
    dice, done, resume = random.Random(seed), 0, []
    for number in range(kills):
        sweep = Sweep(*command, *resume, cwd=cwd)
        if not within(60, lambda sweep=sweep: (cwd / "runs/sweeps/latest").exists() and sweep.at_work(), sweep):
            break  # all have finished
        resume = [f"resume={sweep.folder}"]
        time.sleep(dice.uniform(0, 1.5))
        running = sweep.at_work()
        whole = sweep.fork.process.pid
        victims = {0: [whole], 1: running or [whole], 2: [whole, *running]}[number % 3]  # none runs between two cells
        if sweep.running:
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            done += 1
            if number % 3 == 1:  # the sweep goes on with the next cell; end it, too, or it would finish
                sweep.fork.send(signal.SIGTERM)
        sweep.fork.process.join(120)
        assert within(60, lambda running=running: all(map(gone, running)), AlwaysRunning)  # a cell saves first
    Sweep(*command, *resume, cwd=cwd).fork.wait(timeout=600)
    for seed in seeds:
        Fork("train.py", *settings, "evaluation.bits_per_dim.evaluations=50", f"seed={seed}", f"out=whole_{seed}",
             cwd=cwd).wait()  # fmt: skip
        [cell] = [c for c in records.within((cwd / "runs/sweeps/latest").resolve()) if c.name == f"seed={seed}"]
        assert cell.status == "finished"
        assert_same_run(cell.folder, cwd / f"whole_{seed}")
        ours, theirs = (json.loads((f / "results.json").read_text()) for f in (cell.folder, cwd / f"whole_{seed}"))
        assert ours["metrics"] == theirs["metrics"]
    return done


@pytest.mark.slow
def test_killed_four_times_it_is_the_same_sweep(tmp_path):
    assert tortured(tmp_path, kills=4, seed=1) >= 2


@pytest.mark.slow
def test_killed_twenty_times_it_is_the_same_sweep(tmp_path):
    assert tortured(tmp_path, kills=20, seed=2) >= 10
