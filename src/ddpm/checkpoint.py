"""Checkpoints: from a file or run folder to a configuration and weights, nothing in them executed; and writing them."""

import io
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

EMA_PREFIX = "p_ema.network."
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


@dataclass(frozen=True)
class Checkpoint:
    """What evaluation and resuming need of a training run."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]  # the averaged network's state_dict
    step: int
    pending: bool  # a signal came before the validation and pictures of this step

    @property
    def run(self) -> Path | None:
        """The run folder that the file lies in, if it lies in one."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else None

    @property
    def evaluated(self) -> bool:
        """Whether its run folder holds results that are newer."""
        results = self.run / "results.json" if self.run else None
        return results is not None and results.is_file() and results.stat().st_mtime >= self.path.stat().st_mtime


def locate(path: str | Path) -> Path:
    """The checkpoint file that a file or run folder stands for.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        file = path / "checkpoints" / LAST
        if not file.is_file():
            raise FileNotFoundError(f"{path} is not a run folder with a checkpoint: {file} does not exist")
        return file.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a run folder or a checkpoint file")
    return path.resolve()


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a checkpoint, damaged, or one that holds more than tensors and plain containers.
    """
    file = locate(path)
    content = read(file)
    if not {"state_dict", "config", "global_step"} <= content.keys():
        raise ValueError(f"{file} is not a checkpoint of this framework: it has no state_dict, config and global_step")
    state, config, step = content["state_dict"], content["config"], content["global_step"]
    if not (isinstance(state, dict) and isinstance(config, dict) and isinstance(step, int)):
        raise ValueError(f"{file} is not a checkpoint of this framework: its parts are of the wrong kind")
    weights = {
        str(key).removeprefix(EMA_PREFIX): value for key, value in state.items() if str(key).startswith(EMA_PREFIX)
    }
    return Checkpoint(file, config, weights, step, bool(content.get("pending")))


def newest(run: Path) -> Checkpoint | None:
    """The checkpoint to continue from: the last, the one before where that is damaged, None where there is none yet.

    Raises:
        ValueError: neither can be read, or `run` is a file and cannot be.
    """
    if run.is_file():
        return load(run)
    files = [file for name in (LAST, PREVIOUS) if (file := run / "checkpoints" / name).exists()]
    complaint = None
    for file in files:
        try:
            found = load(file)
        except ValueError as error:
            complaint = complaint or error
            continue
        if complaint:
            print(f"warning: {complaint}; going on from {file.name}, step {found.step}", file=sys.stderr, flush=True)
        return found
    if complaint:
        raise complaint
    return None


def read(file: Path) -> dict[str, Any]:
    """A checkpoint's content: tensors and plain containers, none larger than the file says. Nothing is executed.

    Raises:
        ValueError: anything else.
    """
    try:
        _check_archive(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} is refused: it holds objects other than tensors and plain containers") from error
    except _ArchiveError as error:
        raise ValueError(f"{file} {error}") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever a forged archive makes the reader raise
        raise ValueError(f"{file} is not a checkpoint, or was cut short") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a checkpoint of this framework: it has no state_dict, config and global_step")
    size = file.stat().st_size
    if any(tensor.numel() * tensor.element_size() > size for tensor in _tensors(content)):
        raise ValueError(f"{file} is refused: a tensor in it claims to be larger than the file")
    return content


def write(content: dict[str, Any], file: Path) -> None:
    """Write `file`, on the disk when this returns; the one before stays as previous.ckpt. At any moment one is whole.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    buffer = io.BytesIO()  # torch's own writer would not say that the disk is full
    torch.save(content, buffer)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name("new.ckpt")
    new.unlink(missing_ok=True)
    try:
        with new.open("xb") as out:
            out.write(buffer.getbuffer())
            out.flush()
            os.fsync(out.fileno())
    except OSError:
        new.unlink(missing_ok=True)
        raise
    if file.exists():
        previous = file.with_name(PREVIOUS)
        previous.unlink(missing_ok=True)
        os.link(file, previous)  # a move would leave a moment without a last.ckpt
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _ArchiveError(Exception):
    """What is wrong with an archive, as the end of a sentence that begins with its name."""


def _check_archive(file: Path) -> None:
    """Intact, and no larger inside than outside: PyTorch stores without compression and checks no sums."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as start:
            cut = start.read(2) == b"PK"
        raise _ArchiveError("is not a checkpoint, or was cut short" if cut else "is not a checkpoint")
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
        if packed or sum(record.file_size for record in records) > file.stat().st_size:
            raise _ArchiveError("is refused: it is compressed, and may unpack to any size")
        if (damaged := archive.testzip()) is not None:
            raise _ArchiveError(f"is damaged ({damaged})")


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors; iterative, since a forged tree may be as deep as it likes."""
    stack, seen = [tree], set()
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, dict | list | tuple | set) and id(node) not in seen:
            seen.add(id(node))
            stack.extend([*node.keys(), *node.values()] if isinstance(node, dict) else node)
