"""Files of tensors, read without executing anything in them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


def read(file: Path) -> Any:
    """What a pickle of PyTorch's holds (tensors and plain containers), or the tensors of a .safetensors by name.

    Raises:
        ValueError: not such a file, damaged, or one that holds more than that.
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)[0]
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(file):
            raise ValueError(f"{file} is refused: it holds objects other than tensors and plain containers") from error
        raise ValueError(f"{file} is not a checkpoint") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a checkpoint, or was cut short") from error


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors by name, and its metadata.

    Raises:
        ValueError: not such a file, or damaged.
    """
    try:
        with safe_open(file, framework="pt") as content:
            return {key: content.get_tensor(key) for key in content.keys()}, content.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not a .safetensors file, or was cut short") from error
