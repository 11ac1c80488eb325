"""The command line around a command: completion by the shell, help, folders of a user's own."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm.__main__ import COMMANDS, OVER_CONF, main
from ddpm.config import command, groups
from ddpm.config.errors import RequestError, request_errors
from ddpm.processes import RunFailedError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ddpm ", "train evaluate inspect report diagnose export steps wandb-workspace"),
        ("ddpm ev", "train evaluate inspect report diagnose export steps wandb-workspace"),
        ("ddpm train prediction=", "prediction=edm prediction=eps prediction=mu prediction=v prediction=x0"),
        ("ddpm train seed=1 sampler=dd", "sampler=ddim sampler=ddim_eta1"),
        ("ddpm evaluate keep", "keep="),
        ("ddpm report ", ""),
    ],
)
def test_the_shell_is_told_what_can_follow(line, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ddpm"])
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == expected.split()


def test_help_names_every_command(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"ddpm {name} " in printed for name in ("train", "evaluate", "report", "export"))
    with pytest.raises(RequestError, match="did you mean train"):
        main(["trian"])


def test_own_folders_are_taken_from_the_words_and_handed_down(tmp_path, monkeypatch):
    monkeypatch.setenv(groups.OWN, "")
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / f"{name}.yaml").touch()
    words = ["-m", f"--config-dir={tmp_path}/one", "seed=1", "--config-dir", f"{tmp_path}/two"]
    assert command.with_own_conf(words) == ["-m", "seed=1"]
    assert os.environ[groups.OWN].split(os.pathsep) == [f"{tmp_path}/one", f"{tmp_path}/two"]
    assert {"one", "two", "digits"} <= set(groups.options_of("data"))


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {*OVER_CONF}))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_the_module_s(capsys, name, flag):
    assert main([name, flag]) == 0
    assert capsys.readouterr().out.strip() == importlib.import_module(COMMANDS[name]).__doc__.strip()


def test_help_waits_for_no_torch():
    code = "import sys; from ddpm.__main__ import main; main(['export', '-h']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_another_pipe_that_closes_is_an_error():
    def main():
        raise BrokenPipeError("a worker is gone")

    with pytest.raises(BrokenPipeError, match="a worker"):
        command.guarded(main)


@pytest.mark.parametrize("words", ["export -h", "train --cfg job"])
def test_a_pipe_that_closes_is_no_error(words):
    done = subprocess.run(f"{sys.executable} -m ddpm {words} | head -c 1", shell=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("rank", "cause", "said"),
    [
        ("0", OSError("a.png"), "error: it failed\n"),
        ("1", OSError("a.png"), "error in another process than the first: it failed\n"),
        ("1", RuntimeError("gloo"), ""),
    ],
)
def test_the_process_that_alone_knows_why_a_run_failed_says_so(rank, cause, said, monkeypatch, capsys):
    def failing():
        raise RunFailedError("it failed") from cause

    assert _end(failing, rank, monkeypatch) == 1
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("rank", "cause", "said"),
    [
        ("0", None, "error: no\n"),
        ("1", None, ""),  # the command line is the same in all
        ("1", OSError("a.png"), "error in another process than the first: no\n"),
        ("1", MemoryError(), "error in another process than the first: no\n"),
    ],
)
def test_the_process_that_alone_lacks_what_was_asked_for_says_so(rank, cause, said, monkeypatch, capsys):
    def refusing():
        raise RequestError("no") from cause

    assert _end(refusing, rank, monkeypatch) == 2
    assert capsys.readouterr().err == said


def test_a_full_disk_is_one_line_wherever_it_is_met(monkeypatch, capsys):
    def writing():
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert _end(writing, "0", monkeypatch) == 1
    said = "error: [Errno 28] No space left on device: 'report.html'; make room, and give the same command again\n"
    assert capsys.readouterr().err == said

    def refusing():
        with request_errors():
            writing()

    assert _end(refusing, "0", monkeypatch) == 1
    assert capsys.readouterr().err == said


def test_another_error_of_a_file_that_nobody_foresaw_keeps_its_traceback(monkeypatch):
    def reading():
        Path("/nowhere").read_text()

    with pytest.raises(FileNotFoundError):
        _end(reading, "0", monkeypatch)


def _end(main, rank, monkeypatch):
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as end:
        command.guarded(main)
    return end.value.code
