"""What every command does first: imported by the server whose forks are the tests' commands."""

import atexit
import gc
import os
from pathlib import Path

import composition
import pytest  # noqa: F401
import sklearn.utils.parallel  # noqa: F401
import wandb.sdk.launch  # noqa: F401

import ddpm.build
import ddpm.commands.evaluate
import ddpm.commands.train
import ddpm.training.checkpointing
import ddpm.training.resume  # noqa: F401
from ddpm.config.compose import compose
from ddpm.data.digits import load_digits_split

# The server was told where this file is; its forks need not know.
own, _, others = os.environ.pop("PYTHONPATH").partition(os.pathsep)
assert own == str(Path(__file__).parent)
if others:
    os.environ["PYTHONPATH"] = others

composition.remember()
compose(["debug=smoke"])
compose([], "evaluate")
load_digits_split()
gc.freeze()  # else a fork walks through all of this, and copies it, whenever it collects garbage
atexit.register(gc.unfreeze)
