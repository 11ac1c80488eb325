"""What is printed for a user to type can be typed, where the user is."""

import shlex
import sys

import pytest
from commands import ROOT

from ddpm.messages import typed


@pytest.mark.parametrize(
    ("called", "where", "shown"),
    [
        ("train.py", ROOT, "python evaluate.py"),
        (f"{ROOT}/src/ddpm/__main__.py", ROOT, "python evaluate.py"),
        (f"{ROOT}/train.py", None, shlex.join(["python", f"{ROOT}/evaluate.py"])),
        ("/usr/bin/ddpm", None, "ddpm evaluate"),
        ("", None, "ddpm evaluate"),
        ("train.py", None, "ddpm evaluate"),  # of another project, with scripts of these names
    ],
)
def test_a_command_is_that_of_the_place(called, where, shown, monkeypatch, workspace):
    for name in ("train.py", "evaluate.py"):
        (workspace / name).touch()
    monkeypatch.setattr(sys, "argv", [called])
    if where:
        monkeypatch.chdir(where)
    assert typed("evaluate", "ckpt=run") == f"{shown} ckpt=run"


def test_words_reach_the_command_through_a_shell(workspace):
    words = ["ckpt=/my runs/it's", "name=a;b", "seed=1,2"]
    assert shlex.split(typed("train", *words)) == ["ddpm", "train", *words]
