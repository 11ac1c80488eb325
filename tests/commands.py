"""Commands as a user starts them: processes of their own, in a directory of their own."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Imports once what every command imports; each command is then a fork of that process, seconds faster.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["ddpm.build", "ddpm.training.checkpointing", "ddpm.training.resume", "commands"])


def run(script, *arguments, cwd, code=0, timeout=300):
    """The finished process, which must end with `code`; a script of the root, or `-m` and a module."""
    command = [sys.executable, script if script == "-m" else str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done


class Fork:
    """The same as a process that goes on beside the test: it can be waited for, told things, and killed."""

    def __init__(self, script, *arguments, cwd, **environment):
        self.log = Path(cwd) / f".log{os.urandom(4).hex()}"
        self.process = _FORKS.Process(target=_main, args=(script, arguments, str(cwd), environment, str(self.log)))
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


def _main(script, arguments, cwd, environment, log):
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script starts a command in the background
    os.environ.update(environment)
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.argv = [str(ROOT / script), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")
