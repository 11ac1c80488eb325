"""Writing files that a reader sees as they were or as they are to be, never half."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path`, on the disk, when the block ends; nothing changes if it fails.

    It is made beside its place under a hidden name, which must not be a link: an old one is removed first.

    Args:
        shared: other processes may write the same file at the same time.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part" if shared else f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # of an open file
            error.filename = str(path)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `path` when the block ends; nothing changes if it fails.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def whole_content(folder: Path) -> Iterator[Path]:
    """A hidden folder inside one, whose files and folders move up into it when the block ends; none do if it fails.

    Raises:
        OSError: they cannot be written.
    """
    hidden = folder / ".part"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    try:
        yield hidden
        for path in hidden.iterdir():
            path.rename(folder / path.name)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def write_whole(path: Path, content: str | bytes, *, shared: bool = False) -> None:
    """Write a file whole; text as UTF-8, its line ends as they are.

    Args:
        shared: other processes may write the same file at the same time.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path, shared=shared) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def name_again(file: Path, name: Path) -> None:
    """Give a file another name beside it, at once; what had that name loses it.

    Where the file system has no hard links, the other name is a copy's.

    Raises:
        OSError: it cannot be done; what had that name has it still.
    """
    temporary = name.with_name(f".{name.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(file, temporary)
    except OSError:
        with file.open("rb") as source, whole_file(name) as copy:
            shutil.copyfileobj(source, copy)
        return
    temporary.replace(name)
    temporary.unlink(missing_ok=True)  # where both are the same file already, nothing was moved
    sync_folder(name.parent)


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk, so that a power cut does not undo a move."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
