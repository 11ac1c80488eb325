"""What needs no SLURM: torchrun with a dead worker and on two nodes, joblib under Ctrl-C, Optuna with a database."""

import contextlib
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, Fork
from torture import content, metrics, reached

from ddpm.runs import records

pytestmark = pytest.mark.cluster

TINY = [
    "debug=smoke", "logger=csv", "network.channels=8", "network.groups=4", "evaluate_after=false",
    "loader.batch_size=8", "every={log: 1, validation: 200, samples: 200, checkpoint: 10}",
]  # fmt: skip
ON_CPU = ["trainer=ddp", "trainer.accelerator=cpu"]


class Command:
    """A command in the background, with a session of its own, as in a terminal."""

    def __init__(self, *words, cwd, log="log"):
        self.log = cwd / log
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *words], cwd=cwd, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def until(self, happened, seconds=300):
        until = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def wait(self, code=0):
        assert self.process.wait(300) == code, self.log.read_text()
        return self.log.read_text()

    def processes(self):
        """The processes that work in the command's folder, itself included, by id, with their environment."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "cwd").readlink() == self.log.parent:
                    texts = (folder / "environ").read_text().split("\0")
                    found[int(folder.name)] = dict(text.split("=", 1) for text in texts if "=" in text)
        return found


def assert_equal_to_one_process(run, steps, cwd):
    Fork("train.py", *TINY, f"max_steps={steps}", "out=alone", cwd=cwd).wait(timeout=300)
    ours, alone = (content(folder) for folder in (run, cwd / "alone"))
    assert ours["global_step"] == alone["global_step"] == steps
    weights, expected = ours["state_dict"], alone["state_dict"]
    assert max(float((weights[key] - expected[key]).abs().max()) for key in expected) < 1e-4
    for step, row in metrics(cwd / "alone").items():
        assert float(metrics(run)[step]["train/loss"]) == pytest.approx(float(row["train/loss"]), rel=1e-4)


def test_torchrun_starts_again_after_a_dead_worker_and_goes_on(tmp_path, monkeypatch):
    [variable] = re.findall(r"needs `export (TORCH_\w+)=1`", (ROOT / "docs/sweeps.md").read_text())
    monkeypatch.setenv(variable, "1")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    run = ["out=run", "resume=auto", "max_steps=80", "trainer.devices=2"]
    command = Command(*words, str(ROOT / "train.py"), *TINY, *ON_CPU, *run, cwd=tmp_path)
    command.until(reached(tmp_path / "run", 25))
    victim = next(pid for pid, environment in command.processes().items() if environment.get("RANK") == "1")
    os.kill(victim, signal.SIGKILL)
    printed = command.wait()
    [step] = re.findall(r"going on from step (\d+)", printed)
    assert 20 <= int(step) < 80
    assert_equal_to_one_process(tmp_path / "run", 80, tmp_path)


def test_two_nodes_meet_as_the_docs_say(tmp_path):
    text = (ROOT / "docs/sweeps.md").read_text()
    [line] = re.findall(r"^torchrun .*?\n\n?```", text, re.MULTILINE | re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for said, here in {
        "```": "", "\\\n": "", "--nproc-per-node 8": "--nproc-per-node 2", "trainer.devices=8": "trainer.devices=2",
        "$FIRST:29500": f"127.0.0.1:{port}", "train.py": str(ROOT / "train.py"), "trainer=ddp": " ".join(ON_CPU),
        "recipe=cifar10": " ".join(map(shlex.quote, [*TINY, "max_steps=30"])),
    }.items():  # fmt: skip
        assert said in line
        line = line.replace(said, here)
    nodes = [
        Command("-m", "torch.distributed.run", *shlex.split(line.replace("$NODE", str(node)))[1:], cwd=tmp_path,
                log=f"log{node}") for node in (0, 1)
    ]  # fmt: skip
    for node in nodes:
        node.wait()
    assert_equal_to_one_process(tmp_path / "runs/mine", 30, tmp_path)


@pytest.mark.parametrize(
    ("launcher", "tell", "code"),
    [
        (["joblib", "hydra.launcher.n_jobs=2"], lambda pid: os.killpg(pid, signal.SIGINT), 130),  # as a terminal does
        (["submitit_local"], lambda pid: os.kill(pid, signal.SIGTERM), 143),
    ],
)
def test_cells_at_the_same_time_save_and_leave_nobody(tmp_path, launcher, tell, code):
    cells = [f"hydra/launcher={launcher[0]}", *launcher[1:], "max_steps=100000", "seed=1,2"]
    command = Command(str(ROOT / "train.py"), "-m", *TINY, *cells, cwd=tmp_path)
    folder = tmp_path / "runs/sweeps/latest"
    command.until(lambda: all(reached(folder / f"00{k}_seed-{k + 1}", 12)() for k in (0, 1)))
    tell(command.process.pid)
    printed = command.wait(code)
    until = time.monotonic() + 60
    while left := command.processes():
        assert time.monotonic() < until, list(left)
        time.sleep(0.1)
    for cell in records.within(folder):
        assert cell.status == "interrupted"
        assert content(cell.folder)["global_step"] >= 12
        assert content(cell.folder)["pending"]
    assert "Traceback" not in printed
    assert "it goes on with" in printed


def test_optuna_with_a_database(tmp_path):
    """The study is in the database, with the values that the cells measured; gone on with, it takes more trials."""
    small = [text for text in TINY if text != "evaluate_after=false"]
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1", "optimizer.lr=tag(log,interval(1e-4,1e-1))"]
    study = ["hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=rates", "hydra.sweeper.n_trials=2"]
    Fork("train.py", "-m", *small, *search, *study, cwd=tmp_path).wait(timeout=400)
    folder = tmp_path / "runs/sweeps/latest"

    def trials():
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as base:
            rows = base.execute(
                "select trials.state, trial_params.param_value, trial_values.value from trials "
                "join trial_params using (trial_id) join trial_values using (trial_id) order by trials.number"
            )
            return list(rows)

    first = trials()
    assert [state for state, *_ in first] == ["COMPLETE", "COMPLETE"]
    assert len(records.within(folder)) == 2
    Fork("train.py", "-m", f"resume={folder.resolve()}", cwd=tmp_path).wait(timeout=400)
    assert trials()[:2] == first
    assert len(trials()) == 4
