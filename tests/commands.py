"""Commands as a user starts them: processes of their own, in a directory of their own."""

import contextlib
import functools
import multiprocessing
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch.multiprocessing

import ddpm.sweep.process  # noqa: F401  which would name for the server what cells import

ROOT = Path(__file__).parents[1]
SMALL = ("debug=smoke", "logger=csv", "network.channels=8", "network.channel_mult=[1]", "network.groups=4")
EXTENSIBLE = (*SMALL, "optimizer.anneal=false")  # to any number of steps


@functools.cache
def server():
    """Start the process of which all commands are forks, where there is none yet, and return its address.

    It has done what every command does first, so that each starts seconds sooner.
    """
    forkserver.set_forkserver_preload(["warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return forkserver._forkserver._forkserver_address


def share(address):
    """Use the server that another process has started, at this address."""
    ours = forkserver._forkserver
    ours._forkserver_address, ours._forkserver_alive_fd = address, os.open(os.devnull, os.O_RDONLY)
    ours.ensure_running = forkserver.ensure_running = lambda: None


def _fork(*arguments):
    """Make a process that will run one of our commands."""
    address = server()
    return multiprocessing.get_context("forkserver").Process(target=_main, args=(address, *arguments))


def in_processes(number, function, *arguments):
    """Call function(rank, *arguments) in so many processes at once, and wait for them. It must be a module's."""
    server()
    torch.multiprocessing.start_processes(function, arguments, nprocs=number, start_method="forkserver")


def run(script, *arguments, cwd, code=0, timeout=300):
    """The finished process, which must end with `code`: a script of the root, or `-m` and a module.

    Our own commands are forks, too. What is another's, or is to begin with nothing imported, is an interpreter anew.
    """
    if script not in ("train.py", "evaluate.py") and (script, *arguments[:1]) != ("-m", "ddpm"):
        return run_anew(script, *arguments, cwd=cwd, code=code, timeout=timeout)
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "stdout", Path(place) / "stderr"
        process = _fork(script, arguments, str(cwd), {}, str(out), str(err))
        process.start()
        process.join(timeout)
        done = subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())
        process.kill()
    assert done.returncode == code, done.stdout + done.stderr
    return done


def run_anew(script, *arguments, cwd, code=0, timeout=300):
    """The same, as an interpreter of its own."""
    command = [sys.executable, script if script == "-m" else str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done


class Fork:
    """The same as a process that goes on beside the test: it can be waited for, told things, and killed."""

    def __init__(self, script, *arguments, cwd, **environment):
        self.log = Path(cwd) / f".log{os.urandom(4).hex()}"
        self.process = _fork(script, arguments, str(cwd), environment, *[str(self.log)] * 2)
        self.process.start()

    @classmethod
    def train(cls, *arguments, cwd):
        return cls("train.py", *arguments, cwd=cwd)

    def wait(self, code=0, timeout=120):
        """All that it printed. It must end with `code`."""
        self.process.join(timeout)
        printed = self.log.read_text() if self.log.exists() else ""
        assert self.process.exitcode == code, f"exit code {self.process.exitcode}:\n{printed}"
        return printed

    def send(self, signum):
        os.kill(self.process.pid, signum)

    @property
    def running(self):
        return self.process.is_alive()


class Ranks:
    """The processes of one job on `nodes` machines (all of them this one) of `devices` each, started from outside.

    They learn of each other from the variables that Lightning passes on, or from those that torchrun sets.
    """

    def __init__(self, script, *arguments, cwd, devices, nodes=1, torchrun=False):
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(nodes * devices)}
        hardware = (f"trainer.devices={devices}", f"trainer.num_nodes={nodes}")
        own = [
            {"RANK": node * devices + rank, "GROUP_RANK": node, "LOCAL_WORLD_SIZE": devices, "TORCHELASTIC_RUN_ID": "1"}
            if torchrun
            else {"NODE_RANK": node}
            for node in range(nodes)
            for rank in range(devices)
        ]
        self.forks = [
            Fork(
                script,
                *arguments,
                *hardware,
                cwd=cwd,
                LOCAL_RANK=str(k % devices),
                **job,
                **{name: str(value) for name, value in each.items()},
            )
            for k, each in enumerate(own)
        ]

    def wait(self, code=0, timeout=120):
        """All that they printed. The first must end with `code`, and the others with 0, unless a signal ended them."""
        first, *others = self.forks
        return first.wait(code, timeout) + "".join(fork.wait(code if code < 0 else 0) for fork in others)

    def send(self, signum):
        for fork in self.forks:
            fork.send(signum)

    @property
    def running(self):
        return all(fork.running for fork in self.forks)


def free_port():
    """A port that nobody has, below those that the system gives to others' connections before it is used."""
    while True:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 30_000)))
            return free.getsockname()[1]


def _main(address, script, arguments, cwd, environment, out, err):
    share(address)  # the cells of a sweep are its forks, too
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script starts a command in the background
    os.environ.update(environment)
    for descriptor, log in ((1, out), (2, err)):
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
    if script == "-m":
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    sys.argv = [str(ROOT / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
