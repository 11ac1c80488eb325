"""Results kept on disk in folders that are either whole or absent.

A folder is written beside its place, synced, and renamed into it as the last act: a process killed at any moment leaves
nothing that a later one believes. A lock lets a second process wait for the first instead of repeating its work.
"""

import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from ddpm.data.dataset import DataError
from ddpm.files import sync_folder

INDEX = "index.json"


def once(folder: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill a temporary folder that then becomes `folder`, unless that exists.

    Raises DataError if it cannot be written, or if `build` cannot read a file; what else `build` raises passes through.
    Nothing is left behind.
    """
    if folder.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if folder.exists():
                return
            for orphan in folder.parent.glob(f".{folder.name}.*.partial"):  # its writer held the lock, so it is dead
                shutil.rmtree(orphan)
            partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
            partial.mkdir()
            try:
                _build(build, partial)
                _sync(partial)
                partial.rename(folder)
                sync_folder(folder.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(
            f"cannot write {folder} ({error.strerror or error}): make room, or keep it elsewhere with data.root=FOLDER"
        ) from error


def _build(build: Callable[[Path], None], partial: Path) -> None:
    """Let `build` fill a folder, and tell a file that it cannot read from one that cannot be written there."""
    try:
        build(partial)
    except OSError as error:
        name = error.filename
        if isinstance(name, str | os.PathLike) and not Path(name).is_relative_to(partial):
            raise DataError(f"cannot read {name}: {error.strerror}") from error
        raise


def folder_for(root: Path, name: str, key: Mapping[str, object]) -> Path:
    """Where under `root` to keep what `key` describes."""
    return root / "cache" / f"{name}-{hashlib.sha256(_json(key).encode()).hexdigest()[:16]}"


class Writer:
    """Arrays that grow row by row, so that they need never be in memory as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[str, list[int]]] = {}

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """More rows for the array `name`; their type and shape never change."""
        dtype, shape = self.shapes.setdefault(name, (rows.dtype.str, [0, *rows.shape[1:]]))
        assert (rows.dtype.str, [*rows.shape[1:]]) == (dtype, shape[1:]), name
        with (self.folder / f"{name}.raw").open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        shape[0] += len(rows)


def arrays(
    root: Path, name: str, key: Mapping[str, object], build: Callable[[Writer], None]
) -> dict[str, NDArray[Any]]:
    """The arrays that `build` writes, mapped from disk, read-only. It is called only if nothing with this key is there.

    Raises DataError if there is something, but not what its index says.
    """
    folder = folder_for(root, name, key)

    def fill(partial: Path) -> None:
        writer = Writer(partial)
        build(writer)
        (partial / INDEX).write_text(_json({"key": key, "arrays": writer.shapes}))

    once(folder, fill)
    try:
        index = json.loads((folder / INDEX).read_text())
        if _json(index["key"]) != _json(key):
            raise ValueError("it was made from something else")
        return {array: _map(folder / f"{array}.raw", *about) for array, about in index["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the cache {folder} cannot be used ({error}): delete the folder and run again") from error


def tensor(array: NDArray[Any]) -> Tensor:
    """A mapped array as a tensor. Nobody writes to it: batches are copies."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _map(path: Path, dtype: str, shape: list[int]) -> NDArray[Any]:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    size = path.stat().st_size
    if size != expected:
        raise ValueError(f"{path.name} has {size} bytes instead of {expected}")
    return np.memmap(path, dtype, "r", shape=tuple(shape))


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _sync(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for file in files:
            with open(os.path.join(parent, file), "rb") as handle:
                os.fsync(handle.fileno())
        sync_folder(Path(parent))
