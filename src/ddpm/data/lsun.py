"""LSUN's own format: encoded pictures in an LMDB (F. Yu et al., "LSUN", 2015)."""

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm.data import cache
from ddpm.data.dataset import DataError
from ddpm.data.encoded import Source


def is_lmdb(folder: Path) -> bool:
    return (folder / "data.mdb").is_file()


class Lmdb(Source):
    """The values of an LMDB, in the order of their keys; LSUN has no classes within a category.

    The keys are listed once and cached under `root`, as plain bytes.
    """

    labels = None

    def __init__(self, folder: Path, root: Path, keys: NDArray[Any] | None = None) -> None:
        self.folder, self.root = folder, root
        about = (folder / "data.mdb").stat()
        if keys is None:
            key = {"lmdb": str(folder.absolute()), "size": about.st_size, "modified": about.st_mtime_ns}
            keys = cache.arrays(root, f"{folder.name}-keys", key, self._list_keys)["keys"]
        self.keys = keys
        digest = hashlib.sha256(np.ascontiguousarray(keys).data)
        self.fingerprint = digest.hexdigest()[:12]
        digest.update(f"{folder.absolute()} {about.st_size} {about.st_mtime_ns}".encode())
        self.state = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        return f"{self.folder} key {bytes(self.keys[index])!r}"

    def read(self, index: int) -> bytes:
        with _open(self.folder).begin() as transaction:
            value = transaction.get(bytes(self.keys[index]))
        if value is None:
            raise DataError("there is no such key any more")
        return bytes(value)

    def _list_keys(self, writer: cache.Writer) -> None:
        with _open(self.folder).begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
        if not keys:
            raise DataError(f"the LMDB {self.folder} is empty")
        writer.append("keys", np.array(keys))


_environments: dict[Path, tuple[int, Any]] = {}
_opening = threading.Lock()


def _open(folder: Path) -> Any:
    """The LMDB, opened once per process: LMDB allows no second time, and what a parent has opened is not to be used."""
    place = folder.absolute()
    with _opening:
        opener, environment = _environments.pop(place, (None, None))
        if opener != os.getpid():
            if environment is not None:
                environment.close()  # the copy that a fork has left here
            environment = _open_anew(place)
        _environments[place] = os.getpid(), environment
        return environment


def _open_anew(folder: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise DataError("LSUN's format needs the package lmdb: pip install 'ddpm[lsun]'") from None
    try:
        # Nobody writes: no lock file, which a read-only disk would refuse. Access is random: no read-ahead.
        return lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise DataError(f"{folder} is not an LMDB that can be read: {error}") from error
