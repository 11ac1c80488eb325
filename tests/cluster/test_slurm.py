"""Sweeps and job scripts under a real SLURM, with two nodes on this machine."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT, Fork
from torture import assert_same_run, content, metrics, reached

from ddpm.runs import records
from ddpm.sweep import slurm as slurm_

pytestmark = pytest.mark.cluster

TINY = ["debug=smoke", "logger=csv", "network.channels=8", "network.groups=4", "evaluate_after=false"]
LONG = [
    *TINY, "loader.batch_size=8", "max_steps=200", "every={log: 1, validation: 200, samples: 200, checkpoint: 20}"
]  # fmt: skip
JOBS = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=2"]  # so that two run at the same time


class Sweep:
    """A sweep in the background, whose cells are jobs of a cluster."""

    def __init__(self, cluster, cwd, *overrides):
        self.cluster, self.cwd = cluster, cwd
        self.fork = Fork("train.py", "-m", *overrides, cwd=cwd, **cluster.environment)

    @property
    def folder(self):
        return (self.cwd / "runs/sweeps/latest").resolve()

    def cells(self):
        return {cell.name: cell for cell in records.within(self.folder)}

    def until(self, happened, seconds=300):
        until = time.monotonic() + seconds
        while not happened():
            assert self.fork.running, self.fork.wait(None)
            assert time.monotonic() < until, self.fork.log.read_text()
            time.sleep(0.1)

    def until_step(self, name, step):
        self.until(lambda: name in self.cells() and reached(self.cells()[name].folder, step)())

    def ends(self):
        return {name: cell.status for name, cell in self.cells().items()}


def starts(cell):
    """How often the run of a cell began or went on."""
    return len(re.findall(r"^(?:run folder: .*\n\S+: [\d,]+ parameters)", cell.log.read_text(), re.MULTILINE))


def test_an_array_of_which_one_diverges_one_is_cancelled_and_one_is_requeued(slurm, tmp_path):
    slow = 10**33  # steps of warm-up, in which a learning rate of 1e30 does no harm
    axis = f"optimizer.warmup=0,{slow},{2 * slow},{3 * slow}"
    limits = ["hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=110", "hydra.launcher.max_num_timeout=3"]
    sweep = Sweep(slurm, tmp_path, *LONG, "optimizer.lr=1e30", axis, *JOBS, *limits)
    wild, whole, cancelled, requeued = (f"optimizer.warmup={k}" for k in (0, slow, 2 * slow, 3 * slow))
    sweep.until_step(cancelled, 10)
    slurm("scancel", sweep.cells()[cancelled].job)
    sweep.until_step(requeued, 10)
    job = sweep.cells()[requeued].job
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=2")  # so that its time is up at once
    sweep.until(lambda: slurm.queue().get(job) == "PENDING")
    assert sweep.cells()[requeued].reason == "its job's time was up: it is in the queue again"
    saved = content(sweep.cells()[requeued].folder)["global_step"]
    assert saved >= 10
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=10")  # SLURM lets it wait for two minutes
    printed = sweep.fork.wait(1, timeout=400)
    cells = sweep.cells()
    assert sweep.ends() == {wild: "diverged", whole: "finished", cancelled: "interrupted", requeued: "finished"}
    assert re.fullmatch(r"its job was cancelled: stopped and saved at step \d+", cells[cancelled].reason)
    assert f"going on from step {saved:,}" in cells[requeued].log.read_text()
    assert starts(cells[requeued]) == 2
    assert re.search(r"in SLURM's queue \((Resources|Priority)\): 00", printed)
    assert "sacct" not in printed
    assert "Traceback" not in printed
    Fork("train.py", *LONG, "optimizer.lr=1e30", requeued, "out=alone", cwd=tmp_path).wait()
    assert_same_run(cells[requeued].folder, tmp_path / "alone")


def test_stopped_left_and_adopted(slurm, tmp_path):
    """SIGTERM ends the jobs, saved; SIGINT leaves them, if so wished; both go on, and no cell runs twice at a time."""
    sweep = Sweep(slurm, tmp_path, *LONG, "seed=1,2,3", *JOBS)
    for seed in (1, 2):
        sweep.until_step(f"seed={seed}", 10)
    begun = time.monotonic()
    sweep.fork.send(signal.SIGTERM)
    printed = sweep.fork.wait(143, timeout=180)
    assert time.monotonic() - begun < slurm_.PATIENCE + 30
    assert slurm.queue() == {}
    assert "goes on with" in printed
    assert sweep.ends() == {"seed=1": "interrupted", "seed=2": "interrupted", "seed=3": "waiting"}
    for seed in (1, 2):
        cell = sweep.cells()[f"seed={seed}"]
        assert re.fullmatch(r"the sweep was stopped: stopped and saved at step \d+", cell.reason)
        assert cell.reason.endswith(f" {content(cell.folder)['global_step']}")

    left = Sweep(slurm, tmp_path, f"resume={sweep.folder}", "leave_running=true")
    left.until(lambda: left.cells()["seed=2"].status == "running")
    left.fork.send(signal.SIGINT)
    printed = left.fork.wait(130, timeout=180)
    jobs = slurm.queue()
    assert jobs
    assert all(job in printed for job in jobs)
    assert left.cells()["seed=2"].status == "running"

    printed = Sweep(slurm, tmp_path, f"resume={sweep.folder}").fork.wait(timeout=400)
    assert "are still in SLURM's queue: waiting for" in printed
    assert set(sweep.ends().values()) == {"finished"}
    assert starts(sweep.cells()["seed=2"]) == 2
    assert starts(sweep.cells()["seed=3"]) == 1
    for seed in (2, 3):
        Fork("train.py", *LONG, f"seed={seed}", f"out=alone_{seed}", cwd=tmp_path).wait()
        assert_same_run(sweep.cells()[f"seed={seed}"].folder, tmp_path / f"alone_{seed}")

    before = set(slurm("squeue", "--noheader", "--states=all", "--format=%i").split())
    Sweep(slurm, tmp_path, f"resume={sweep.folder}").fork.wait()
    assert set(slurm("squeue", "--noheader", "--states=all", "--format=%i").split()) <= before  # nothing left to submit


def test_the_job_script_of_the_docs_on_two_nodes(slurm, tmp_path):
    """It saves when its time is up, requeues itself, goes on, evaluates, and has the numbers of one process."""
    [script] = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs/sweeps.md").read_text(), re.DOTALL)
    small = ["debug=smoke", "logger=csv", "network.channels=8", "network.groups=4", "max_steps=60", "every.log=1"]
    small += ["loader.batch_size=8", "evaluation.chunk=20"]
    for said, here in {
        "--ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8": "--ntasks-per-node=2",
        "trainer.devices=8": "trainer.devices=2 trainer.accelerator=cpu",
        "recipe=cifar10": " ".join(small),
        "python ": f"{sys.executable} {ROOT}/",
    }.items():
        assert said in script
        script = script.replace(said, here)
    (tmp_path / "job.sh").write_text(script)
    loopback = {**slurm.environment, "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    submitted = subprocess.run(
        ["sbatch", "--parsable", "job.sh"], cwd=tmp_path, env={**os.environ, **loopback}, capture_output=True, text=True
    )
    job, log = submitted.stdout.strip(), tmp_path / f"slurm-{submitted.stdout.strip()}.out"

    def until(happened, seconds=300):
        until = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < until, log.read_text() if log.exists() else slurm.queue()
            time.sleep(0.1)

    run = tmp_path / "runs/mine"
    until(reached(run, 5))
    slurm("scancel", "--signal=USR1", job)
    until(lambda: slurm.queue().get(job) == "PENDING")
    saved = content(run)["global_step"]
    assert 5 <= saved < 60
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    until(lambda: not slurm.queue())
    assert f"going on from step {saved}" in log.read_text()
    Fork("train.py", *small, "out=alone", cwd=tmp_path).wait()
    ours, alone = (content(folder)["state_dict"] for folder in (run, tmp_path / "alone"))
    assert max(float((ours[key] - alone[key]).abs().max()) for key in alone) < 1e-4
    for step, row in metrics(tmp_path / "alone").items():
        assert float(metrics(run)[step]["train/loss"]) == pytest.approx(float(row["train/loss"]), rel=1e-4)
    assert list(run.glob("evaluations/*/results.json"))
    assert "Traceback" not in log.read_text()
