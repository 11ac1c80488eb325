"""LSUN's own format: encoded pictures in an LMDB (F. Yu et al., "LSUN", 2015)."""

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddpm.data import cache
from ddpm.data.dataset import DataError
from ddpm.data.encoded import Source

# Read every key and the end of every value, in a process of its own: a page that is not there kills it.
READ_ALL = """
import sys, lmdb
with lmdb.open(sys.argv[1], readonly=True, lock=False).begin(buffers=True) as transaction:
    for key, value in transaction.cursor():
        bytes(key), bytes(value[-1:])
"""


def is_lmdb(folder: Path) -> bool:
    return (folder / "data.mdb").is_file()


@dataclass(frozen=True)
class Keys:
    """Keys in one array, padded with zeros; the lengths tell these from zeros that a key ends in."""

    padded: NDArray[np.uint8]
    lengths: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> bytes:
        return self.padded[index, : self.lengths[index]].tobytes()

    def chosen(self, indices: Sequence[int]) -> "Keys":
        """These of the keys."""
        return Keys(self.padded[indices], self.lengths[indices])

    @property
    def content(self) -> bytes:
        """What tells these keys from all others."""
        ends = self.padded[np.arange(len(self)), self.lengths - 1]
        # Lengths are added only where the padding leaves them open: fingerprints are in results that are kept.
        return self.padded.tobytes() + (b"" if ends.all() else self.lengths.tobytes())


class Lmdb(Source):
    """The values of an LMDB, in the order of their keys; LSUN has no classes within a category.

    The keys are listed once and cached under `root`, as plain bytes.
    """

    labels = None

    def __init__(self, folder: Path, root: Path, keys: Keys | None = None) -> None:
        self.folder, self.root = folder, root
        about = (folder / "data.mdb").stat()
        if keys is None:
            key = {
                "lmdb": str(folder.absolute()),
                "size": about.st_size,
                "modified": about.st_mtime_ns,
                "holds": "keys and lengths",
            }
            keys = Keys(**cache.arrays(root, f"{folder.name}-keys", key, self._list_keys))
        self.keys = keys
        digest = hashlib.sha256(keys.content)
        self.fingerprint = digest.hexdigest()[:12]
        digest.update(f"{folder.absolute()} {about.st_size} {about.st_mtime_ns}".encode())
        self.state = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        return f"{self.folder} key {self.keys[index]!r}"

    def read(self, index: int) -> bytes:
        with _reading(self.folder, "the LMDB") as transaction:
            value = transaction.get(self.keys[index])
        if value is None:
            raise DataError("there is no such key any more")
        return bytes(value)

    def _list_keys(self, writer: cache.Writer) -> None:
        if _is_cut_short(self.folder):
            raise DataError(f"{self.folder / 'data.mdb'} was cut short: copy it again")
        with _reading(self.folder, f"the LMDB {self.folder}") as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
        if not keys:
            raise DataError(f"the LMDB {self.folder} is empty")
        lengths = np.array([len(key) for key in keys], np.uint16)
        writer.append("padded", np.array(keys, f"S{lengths.max()}").view(np.uint8).reshape(len(keys), -1))
        writer.append("lengths", lengths)


@contextlib.contextmanager
def _reading(folder: Path, what: str) -> Iterator[Any]:
    """A transaction, in which what is wrong with the file is a DataError."""
    environment = _open(folder)
    import lmdb

    try:
        with environment.begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"{what} is damaged ({error}): copy it again") from error


def _is_cut_short(folder: Path) -> bool:
    """Whether the end of the file is missing, as after an interrupted copy: reading there would kill the process."""
    environment, size = _open(folder), (folder / "data.mdb").stat().st_size
    page = environment.stat()["psize"]
    if (environment.info()["last_pgno"] + 1) * page <= size:
        return False
    # Pages at the end that a transaction took and freed again are never written: a whole file can be short of them.
    return (
        size % page > 0 or subprocess.run([sys.executable, "-c", READ_ALL, folder], capture_output=True).returncode < 0
    )


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
