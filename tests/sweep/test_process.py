"""Signals of a scheduler reach every process of a job; each of them does with them what it should."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from ddpm.sweep import process

SIGNALS = {signal.SIGTERM: "its job was cancelled", signal.SIGUSR1: "the sweep was stopped"}
PATIENT = """
import pathlib, signal, sys, time
def save(signum, frame):
    print(f"saved at {signal.Signals(signum).name}; it goes on", file=sys.stderr)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
time.sleep(100)
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of modules that a process may run, which is the current one. The server is not the other tests'."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    server = forkserver.ForkServer()
    server.set_forkserver_preload([])
    monkeypatch.setattr(forkserver, "_forkserver", server)
    for name in ("ensure_running", "get_inherited_fds", "connect_to_new_process"):
        monkeypatch.setattr(forkserver, name, getattr(server, name))
    yield tmp_path
    server._stop()


SCRIPT = """
import sys
from ddpm.sweep import process
process._processes.set_forkserver_preload([])
print("the script runs", flush=True)
print(process.run(["hello"], [], None))
"""


def test_the_script_that_starts_it_does_not_run_again(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "hello.py").write_text("print('hello', flush=True)")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["the script runs", "hello", "(0, 'it ended without a word')"]


IMPORTING = """
import sys, time
class Slow:
    def find_spec(name, *_):
        if name == "ddpm.build":
            print("importing", flush=True)
            time.sleep(100)
sys.meta_path.insert(0, Slow)
import ddpm.preloaded
"""


def test_the_server_says_nothing_of_ctrl_c_while_it_imports():
    server = subprocess.Popen([sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.stdout.readline() == b"importing\n"
    server.send_signal(signal.SIGINT)
    assert server.communicate() == (b"", b"")
    assert server.returncode == 130


def once_ready(tell):
    """Tell, from a thread, as soon as the process says that it is ready."""

    def wait():
        while not Path("ready").exists():
            time.sleep(0.01)
        tell()

    threading.Thread(target=wait).start()


@pytest.mark.parametrize("signum", SIGNALS)
def test_it_ends_saved_and_this_process_goes_on_and_knows_why(modules, signum):
    (modules / "patient.py").write_text(PATIENT)
    once_ready(lambda: os.kill(os.getpid(), signum))
    before = signal.getsignal(signum)
    code, complaint = process.run(["patient"], [], modules / "log", SIGNALS)
    assert (code, complaint) == (143, f"{SIGNALS[signum]}: saved at SIGTERM")
    assert signal.getsignal(signum) is before


def test_a_signal_that_comes_before_the_process_is_not_lost(modules, monkeypatch):
    (modules / "long.py").write_text("import time; time.sleep(100)")
    held_back = process._held_back

    def told_before():
        os.kill(os.getpid(), signal.SIGTERM)
        return held_back()

    monkeypatch.setattr(process, "_held_back", told_before)
    assert process.run(["long"], [], modules / "log", SIGNALS) == (143, "its job was cancelled")


def test_the_server_outlives_them_and_says_how_the_run_ended(modules):
    """What SLURM sends to all processes of a job; of the server's, only the end of its clients may be the end."""
    (modules / "patient.py").write_text(PATIENT.replace("sleep(100)", "sleep(1)"))

    def tell_server():
        for signum in process.FROM_SCHEDULERS:
            os.kill(forkserver._forkserver._forkserver_pid, signum)

    once_ready(tell_server)
    assert process.run(["patient"], [], modules / "log", SIGNALS) == (0, "it ended without a word")
    assert process.run(["patient"], [], modules / "log", SIGNALS)[0] == 0


def test_the_signal_before_a_time_limit_is_for_the_process_that_watches(modules):
    """submitit's SIGUSR2 puts the job into the queue again, and would kill the run, unsaved."""
    (modules / "told.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGUSR2)")
    assert process.run(["told"], [], modules / "log")[0] == 0


def test_what_a_launcher_raises_here_ends_it_too(modules):
    (modules / "patient.py").write_text(PATIENT)

    def time_is_up(signum, frame):
        raise RuntimeError("its time is up")

    before = signal.signal(signal.SIGUSR2, time_is_up)
    once_ready(lambda: os.kill(os.getpid(), signal.SIGUSR2))
    try:
        with pytest.raises(RuntimeError, match="its time is up"):
            process.run(["patient"], [], modules / "log", SIGNALS)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert "saved at SIGTERM" in (modules / "log").read_text()
