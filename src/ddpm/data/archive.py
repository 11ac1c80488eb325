"""Pictures out of a zip or tar archive."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ddpm.data import cache
from ddpm.data.dataset import DataError
from ddpm.data.picture import is_picture

# What the readers of archives raise where one is damaged or forged.
BROKEN = (
    *(OSError, EOFError, RuntimeError, ValueError, IndexError, OverflowError, struct.error),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)

BLOCK = 1 << 20  # bytes that are copied at a time
# Pictures are packed already: an archive that unpacks to more than both of these was made to fill a disk.
LARGEST_RATIO, LEAST = 50, 1 << 30


def unpacked(archive: Path, root: Path) -> Path:
    """A folder under `root` with the archive's pictures, unpacked unless they are there.

    Raises DataError if it is no archive, is broken, or has a member whose name leads out of the folder.
    """
    if not _is_archive(archive):
        raise DataError(f"{archive} is neither a folder nor a zip or tar archive")
    about = archive.stat()
    key = {"archive": str(archive.absolute()), "size": about.st_size, "modified": about.st_mtime_ns}
    folder = cache.folder_for(root, archive.name, key)
    cache.once(folder, lambda partial: _unpack(archive, partial))
    while len(entries := list(folder.iterdir())) == 1 and entries[0].is_dir():  # the folder that was packed
        folder = entries[0]
    return folder


def _is_archive(path: Path) -> bool:
    """Whether it begins as one; a damaged one does."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except BROKEN:
        return True


def _unpack(archive: Path, folder: Path) -> None:
    left = most = max(LEAST, LARGEST_RATIO * archive.stat().st_size)
    try:
        for name, content in _members(archive):
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{archive} is not unpacked: its member {name!r} would land outside of the folder")
            if is_picture(PurePosixPath(name)):
                target.parent.mkdir(parents=True, exist_ok=True)
                with content() as source, target.open("wb") as file:
                    while block := source.read(BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise DataError(f"{archive} is not unpacked: it holds more than {most / 2**30:.0f} GiB")
                        file.write(block)
    except DataError:
        raise
    except BROKEN as error:
        raise DataError(f"cannot unpack {archive}: {error}") from error


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Name and content of every regular file. Links, which could lead anywhere, are passed over."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    yield info.filename, partial(packed.open, info)
    else:
        with tarfile.open(archive) as tar:
            extract = cast(Callable[[tarfile.TarInfo], IO[bytes]], tar.extractfile)  # None for what is no regular file
            for member in tar:
                if member.isfile():
                    yield member.name, partial(extract, member)
