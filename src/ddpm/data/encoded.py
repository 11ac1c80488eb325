"""Pictures that are stored encoded: decoded once into a cached array where that fits, on the fly where it does not."""

import hashlib
import os
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ddpm.data import cache
from ddpm.data.dataset import DataError, Examples, InMemory
from ddpm.data.picture import PictureTransform
from ddpm.messages import warn
from ddpm.progress import Bar

T = TypeVar("T")
SKIPPED = "skipped.txt"
BLOCK_BYTES = 2**26  # decoded at a time while a cache is written: what bounds the memory


class Source(ABC):
    """A sequence of encoded pictures. Worker processes get a copy, so it pickles.

    `fingerprint` stands for the pictures, wherever they lie; `state` also tells a rewritten file from the former one.
    """

    labels: Int64[Tensor, " n"] | None
    fingerprint: str
    state: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call the picture in a message."""

    @abstractmethod
    def read(self, index: int) -> bytes: ...


class Files(Source):
    """Image files in a folder, by their paths relative to it."""

    def __init__(self, folder: Path, names: Sequence[str], labels: Int64[Tensor, " n"] | None = None) -> None:
        self.folder, self.names, self.labels = folder, names, labels
        content, state = hashlib.sha256(), hashlib.sha256()
        for name in names:
            try:
                about = os.stat(folder / name)
            except OSError:  # a link to nothing: reading it fails, which `on_error` is for
                about = os.lstat(folder / name)
            content.update(os.fsencode(name) + b"\0%d\0" % about.st_size)
            state.update(b"%d\0" % about.st_mtime_ns)
        state.update(content.digest())
        self.fingerprint, self.state = content.hexdigest()[:12], state.hexdigest()

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return one_line(self.folder / self.names[index])

    def read(self, index: int) -> bytes:
        path = self.folder / self.names[index]
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("it is a device or a pipe, whose reading may never end")
        return path.read_bytes()


def one_line(name: object) -> str:
    """Make control characters of a file's name visible, line ends too: a message is one line."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(name)
    )


def attempt(source: Source, transform: Callable[[bytes], T], index: int) -> T | str:
    """What is made of picture `index`, or its name and why it cannot be read."""
    try:
        return transform(source.read(index))
    except (OSError, DataError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return f"{source.name(index)}: {reason}"


def load(source: Source, transform: PictureTransform, index: int) -> UInt8[np.ndarray, "c h w"]:
    """Picture `index`, decoded. Raises DataError naming it if it cannot be read."""
    picture = attempt(source, transform, index)
    if isinstance(picture, str):
        raise DataError(
            f"cannot read {picture}; repair or remove it, or leave out what cannot be read with data.on_error=skip"
        )
    return picture


class Encoded(Examples):
    """Pictures decoded anew each time that they are asked for; `kept[i]` is the place of example i in the source."""

    in_memory = False

    def __init__(self, source: Source, transform: PictureTransform, kept: Int64[Tensor, " n"] | None = None) -> None:
        self.source, self.transform = source, transform
        self.kept = torch.arange(len(source)) if kept is None else kept
        self.labels = None if source.labels is None else source.labels[self.kept]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitems__(self, indices: list[int]) -> UInt8[Tensor, "b c h w"]:
        # Stacked by numpy: PyTorch would wake a pool of threads for each picture.
        return torch.from_numpy(
            np.stack([load(self.source, self.transform, int(self.kept[index])) for index in indices])
        )


def examples(
    source: Source,
    transform: PictureTransform,
    *,
    root: Path,
    name: str,
    on_error: str,
    array_bytes: float,
    tell: bool = False,
) -> Examples:
    """The pictures of a source: one cached array of at most `array_bytes` if they fit, else decoded as needed.

    Where `on_error` is "skip", pictures that cannot be read are left out, and if `tell`, a warning counts them. Those
    that do not fit are all read once to learn which these are, and the answer is cached.
    """
    fits = len(source) * transform.size_bytes <= array_bytes
    if not fits and on_error == "raise":
        return Encoded(source, transform)
    key = {
        "source": source.state,
        "rule": str(transform),
        "on_error": on_error,
        "holds": "pixels" if fits else "places",
    }
    arrays = cache.arrays(
        root, name, key, lambda writer: _decode(source, transform, writer, on_error, keep_pixels=fits)
    )
    kept = cache.tensor(arrays["kept"])
    if tell and len(kept) < len(source):
        listed = cache.folder_for(root, name, key) / SKIPPED
        left_out = f"{len(source) - len(kept)} of {len(source)} pictures"
        warn(f"{name}: left out {left_out}, which cannot be read; they are listed in {listed}")
    if not fits:
        return Encoded(source, transform, kept)
    return InMemory(cache.tensor(arrays["pixels"]), None if source.labels is None else source.labels[kept])


def _decode(
    source: Source, transform: PictureTransform, writer: cache.Writer, on_error: str, keep_pixels: bool
) -> None:
    """Write the pixels and the places of the pictures that can be read, decoding on all cores."""
    read = partial(load if on_error == "raise" else attempt, source, transform)
    block = max(1, BLOCK_BYTES // transform.size_bytes)
    skipped: list[str] = []
    # PIL decodes without holding the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool, Bar("reading pictures", len(source)) as bar:
        for start in range(0, len(source), block):
            indices = range(start, min(start + block, len(source)))
            kept, pixels = [], []
            for index, picture in zip(indices, pool.map(read, indices), strict=True):
                if isinstance(picture, str):
                    skipped.append(picture)
                else:
                    kept.append(index)
                    pixels.append(picture)
            if kept:
                writer.append("kept", np.array(kept, np.int64))
                if keep_pixels:
                    writer.append("pixels", np.stack(pixels))
            bar.advance(len(indices))
    if len(skipped) == len(source):
        raise DataError(f"none of the {len(source)} pictures can be read, the first of them {skipped[0]}")
    if skipped:
        (writer.folder / SKIPPED).write_text("\n".join(skipped) + "\n", errors="surrogateescape")
