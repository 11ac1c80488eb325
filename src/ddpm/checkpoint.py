"""Checkpoints: from a file or run folder to a configuration and the averaged weights; nothing in them is executed."""

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

EMA_PREFIX = "p_ema.network."


@dataclass(frozen=True)
class Checkpoint:
    """What evaluation needs of a training run."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]  # the averaged network's state_dict
    step: int

    @property
    def run(self) -> Path | None:
        """The run folder that the file lies in, if it lies in one."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else None


def locate(path: str | Path) -> Path:
    """The checkpoint file that a file or run folder stands for.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        file = path / "checkpoints" / "last.ckpt"
        if not file.is_file():
            raise FileNotFoundError(f"{path} is not a run folder with a checkpoint: {file} does not exist")
        return file.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a run folder or a checkpoint file")
    return path.resolve()


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours without executing anything in it.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint, damaged, or one that holds more than tensors and plain containers.
    """
    file = locate(path)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(file):
            raise ValueError(f"{file} is refused: it holds objects other than tensors and plain containers") from error
        raise ValueError(f"{file} is not a checkpoint") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a checkpoint, or was cut short") from error
    if not (isinstance(content, dict) and {"state_dict", "config", "global_step"} <= content.keys()):
        raise ValueError(f"{file} is not a checkpoint of this framework: it has no state_dict, config and global_step")
    weights = {
        key.removeprefix(EMA_PREFIX): value
        for key, value in content["state_dict"].items()
        if key.startswith(EMA_PREFIX)
    }
    return Checkpoint(file, content["config"], weights, content["global_step"])
