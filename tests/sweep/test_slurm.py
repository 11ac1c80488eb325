"""What is made of squeue's answers. tests/cluster asks a real one."""

import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from commands import ROOT
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from ddpm.config.errors import RequestError
from ddpm.config.groups import hydra_context
from ddpm.runs import records
from ddpm.sweep import engines, slurm, sweep
from ddpm.sweep.work import WORKS

ON_SLURM = engines.Engines("submitit_slurm", "basic", [])
REQUEST = sweep.Request(WORKS["train"], [], ON_SLURM)


class Commands:
    """squeue and scancel of a folder: what one prints is `answer`, how the other was called `told`."""

    def __init__(self, folder, sweep):
        self.folder, self.scripts = folder, sweep / ".submitit"
        self.scripts.mkdir(parents=True)

    def says(self, *lines):
        text = "".join(f"{line}|{self.scripts}/.submission_file_1f.sh\n" for line in lines)
        self._make("squeue", f"cat <<'E'\n{text}E")

    def fails(self, message):
        self._make("squeue", f"echo {message} >&2; exit 1")

    def _make(self, name, text):
        file = self.folder / f"{name}.new"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        file.replace(self.folder / name)  # at once: a thread may be asking, and half an answer is another one

    def told(self):
        file = self.folder / "told"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Commands(tmp_path / "bin", tmp_path / "sweep")
    made.folder.mkdir()
    made._make("scancel", f'echo "$@" >> {made.folder}/told')
    monkeypatch.setenv("PATH", str(made.folder), prepend=":")
    return made


@pytest.fixture
def queue(cluster):
    return slurm.Queue(cluster.scripts.parent)


def test_jobs_of_other_folders_are_not_the_sweeps(cluster, queue, tmp_path):
    cluster.says("7_0|RUNNING|None", "7_1|PENDING|Priority", "7_2|COMPLETING|None", "7_3|FAILED|NonZeroExitCode")
    with (cluster.folder / "squeue").open("a") as script:
        script.write(f"echo '8|RUNNING|None|{tmp_path}/other/.submitit/a.sh'\necho '9|RUNNING|None|/my|job.sh'\n")
    assert set(queue.jobs()) == {"7_0", "7_1", "7_2", "7_3"}
    assert set(queue.alive()) == {"7_0", "7_1", "7_2"}


def test_an_answer_that_fails_changes_nothing_and_is_said_once(cluster, queue, capsys):
    cluster.says("7|RUNNING|None")
    queue.jobs(now=True)
    cluster.fails("slurm_load_jobs error: Unable to contact slurm controller")
    for _ in range(3):
        assert set(queue.alive(now=True)) == {"7"}
    assert capsys.readouterr().err.count("Unable to contact") == 1
    cluster.says()
    assert not queue.alive(now=True)
    assert queue.jobs()["7"].state == "GONE"


def test_slurm_is_not_asked_again_and_again(cluster, queue, monkeypatch):
    cluster.says("7|RUNNING|None")
    queue.jobs()
    cluster.says()
    assert queue.alive()
    monkeypatch.setattr(slurm, "ASK", 0)
    assert not queue.alive()


def test_why_the_cells_wait(cluster, queue):
    cluster.says("6_0|PENDING|Priority", "6_1|PENDING|Priority")
    queue.expect(["000_a", "002_c"])
    cluster.says("6_0|PENDING|Dependency", "7_0|PENDING|None", "7_1|PENDING|Resources", "8_4|PENDING|Priority")
    queue.jobs(now=True)
    assert queue.waits() == {"job 6_0": "Dependency", "002_c": "Resources", "job 8_4": "Priority"}
    assert queue.job_of(records.Cell(Path("s/000_a"), [])).id == "7_0"
    assert queue.job_of(records.Cell(Path("s/000_a"), [], job="6_0")).id == "6_0"  # it has begun as that
    assert queue.job_of(records.Cell(Path("s/001_b"), [])) is None


def test_cancelling_is_patient_but_not_for_ever(cluster, queue, monkeypatch):
    cluster.says("7_0|RUNNING|None", "7_1|PENDING|Priority")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    clock = iter(range(0, 10000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    slurm.cancel(queue)
    *mild, last = cluster.told()
    assert last == "7_0 7_1"
    assert mild
    assert mild[:2] == ["--state=PENDING 7_0 7_1", "--signal=USR1 7_0 7_1"]
    assert mild == mild[:2] * (len(mild) // 2)
    assert signal.SIGUSR1 in slurm.SIGNALS  # by which a cell knows


def test_cancelling_ends_with_the_jobs(cluster, queue, monkeypatch):
    cluster.says("7|RUNNING|None")
    monkeypatch.setattr(time, "sleep", lambda _: cluster.says("7|COMPLETED|None"))
    slurm.cancel(queue)
    assert cluster.told() == ["--state=PENDING 7", "--signal=USR1 7"]


@pytest.mark.parametrize(
    ("status", "state", "stopped", "end"),
    [
        ("running", "OUT_OF_MEMORY", False, ("failed", "its job ran out of memory")),
        ("running", "CANCELLED", False, ("interrupted", "its job was cancelled")),
        ("running", "NODE_FAIL", True, ("failed", "its node failed")),
        ("running", "COMPLETED", False, ("running", "")),  # a file system that is late
        ("waiting", "CANCELLED", False, ("interrupted", "its job was cancelled while it waited")),
        ("waiting", "CANCELLED", True, ("waiting", "")),
        ("finished", "FAILED", False, ("finished", "")),
    ],
)
def test_what_a_cell_could_not_record(cluster, queue, status, state, stopped, end):
    folder = cluster.scripts.parent
    records.Cell(folder / "000_a", ["seed=1"], status=status, job="7" if status == "running" else "").write()
    cluster.says()
    queue.expect(["000_a"])
    cluster.says(f"7|{state}|None")
    try:
        with sweep._stoppable(folder, REQUEST, queue, leave=False):
            if stopped:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert stopped
    [cell] = records.within(folder)
    assert (cell.status, cell.reason) == end


def test_what_is_left_running_stays_recorded_so(cluster, queue, capsys):
    folder = cluster.scripts.parent
    for number in (0, 1):
        records.Cell(folder / f"00{number}_a", [f"seed={number}"], status="running", job=f"7_{number}").write()
    cluster.says("7_0|RUNNING|None", "7_1|NODE_FAIL|None")
    with pytest.raises(KeyboardInterrupt), sweep._stoppable(folder, REQUEST, queue, leave=True):
        raise KeyboardInterrupt
    assert [cell.status for cell in records.within(folder)] == ["running", "failed"]
    assert cluster.told() == []
    assert "left in SLURM's queue: 7_0\n" in capsys.readouterr().err


def test_submitit_goes_on_when_a_job_is_lost_and_is_not_asked_for_what_is_settled(cluster, queue, monkeypatch):
    from hydra.core.utils import JobReturn
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    from submitit.slurm.slurm import SlurmJob

    launched, returned = [], [JobReturn()]
    monkeypatch.setattr(SlurmLauncher, "launch", lambda _, overrides, first: launched.extend(overrides) or returned)
    for name in ("results", "watcher", "_results_timeout_s"):  # so that they are put back
        monkeypatch.setattr(SlurmJob, name, getattr(SlurmJob, name))
    slurm.prepare_launcher(queue, 7.0, lambda overrides: overrides == ["seed=1"])
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)
    assert SlurmLauncher.launch(None, [["seed=1"], ["seed=2"]], 0) is returned
    assert launched == [["seed=2"]]
    assert SlurmLauncher.launch(None, [["seed=1"]], 0) == []

    cluster.says("7_0|RUNNING|None", "7_1|CANCELLED|None")
    folder = cluster.scripts / "%j"
    running, cancelled, lost = (SlurmJob(folder, id) for id in ("7_0", "7_1", "5"))
    (cluster.scripts / "7_1").mkdir()
    (cluster.scripts / "5").mkdir()
    assert not running.done()
    assert cancelled.results()[0].return_value == 7.0
    assert not lost.done()  # it may not be in the queue yet
    monkeypatch.setattr(slurm, "APPEAR", 0)
    assert lost.results()[0].return_value == 7.0


def test_the_settings_of_the_docs_become_those_of_sbatch(monkeypatch):
    from submitit.slurm.slurm import _make_sbatch_string

    monkeypatch.setattr(engines.shutil, "which", lambda name: f"/bin/{name}")
    settings = [
        setting
        for row in re.findall(r"^\| (`.*?`) \|", (ROOT / "docs/cluster.md").read_text(), re.MULTILINE)
        for setting in shlex.split(row.strip("`"))
    ]
    assert len(settings) > 8
    names = [f"{'+' * setting.startswith('additional')}hydra.launcher.{setting}" for setting in settings]
    own, _ = engines.of(["seed=1,2", "hydra/launcher=submitit_slurm", *names])
    with hydra_context():
        launcher = GlobalHydra.instance().config_loader().load_configuration(
            "train", own.settings, RunMode.MULTIRUN
        ).hydra.launcher  # fmt: skip
    known = ("account", "qos", "constraint", "array_parallelism", "additional_parameters", "setup", "signal_delay_s")
    script = _make_sbatch_string("run", "folder", map_count=9, job_name=launcher.name,
                                 **{key: launcher[key] for key in known})  # fmt: skip
    for line in ("--account=vision", "--qos=high", "--constraint=a100", "--array=0-8%4", "--reservation=course",
                 "--mail-type=FAIL", "--job-name=ddpm", "--signal=USR2@120"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "module load cuda/12.8\nsource /home/me/.venv/bin/activate\n" in script


def test_the_launcher_needs_sbatch_not_srun(monkeypatch):
    monkeypatch.setattr(engines.shutil, "which", lambda name: "/bin/sbatch" if name == "sbatch" else None)
    assert engines.of(["hydra/launcher=submitit_slurm"])[0].queued
    monkeypatch.setattr(engines.shutil, "which", lambda name: None if name == "sbatch" else "/bin/any")
    with pytest.raises(RequestError, match="no sbatch here"):
        engines.of(["hydra/launcher=submitit_slurm"])


def test_the_follower_says_why_cells_wait_once_per_change(cluster, queue, capsys, monkeypatch):
    monkeypatch.setattr(slurm, "ASK", 0)
    monkeypatch.setattr(sweep, "POLL", 0.02)
    cluster.says()
    queue.expect([f"00{number}_a" for number in range(6)])
    cluster.says(*(f"7_{number}|PENDING|Priority" for number in range(6)))
    questions, ask = [], slurm.Queue._ask
    monkeypatch.setattr(slurm.Queue, "_ask", lambda queue: (ask(queue), questions.append(1)))

    def follow():
        enough = len(questions) + 3  # what is being asked, and two whole questions after it
        while len(questions) < enough:
            time.sleep(0.01)

    with sweep._followed(cluster.scripts.parent, queue):
        follow()
        cluster.says(*(f"7_{number}|PENDING|{'Resources' if number == 0 else 'Priority'}" for number in range(6)))
        follow()
    assert capsys.readouterr().out.splitlines() == [
        "in SLURM's queue (Priority): 000_a, 001_a, 002_a and 3 others",
        "in SLURM's queue (Resources): 000_a",
    ]
