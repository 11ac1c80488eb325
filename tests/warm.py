"""What every command does first: imported by the server whose forks are the tests' commands."""

import atexit
import gc
import os
from pathlib import Path

gc.disable()  # while all is imported, which makes no garbage

import composition  # noqa: E402
import pytest  # noqa: E402, F401
import sklearn.utils.parallel  # noqa: E402, F401
import wandb.sdk.launch  # noqa: E402, F401

import ddpm.build  # noqa: E402
import ddpm.commands.evaluate  # noqa: E402
import ddpm.commands.train  # noqa: E402
import ddpm.training.checkpointing  # noqa: E402
import ddpm.training.resume  # noqa: E402, F401
from ddpm.config.compose import compose  # noqa: E402
from ddpm.data.digits import load_digits_split  # noqa: E402

# The server was told where this file is; its forks need not know.
own, _, others = os.environ.pop("PYTHONPATH").partition(os.pathsep)
assert own == str(Path(__file__).parent)
if others:
    os.environ["PYTHONPATH"] = others

composition.remember()
compose(["debug=smoke"])
compose([], "evaluate")
load_digits_split()
gc.enable()
gc.freeze()  # else a fork walks through all of this, and copies it, whenever it collects garbage
atexit.register(gc.unfreeze)
