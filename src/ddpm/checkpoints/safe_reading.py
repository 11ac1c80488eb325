"""Files of tensors, read without executing anything in them, and none larger inside than outside."""

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, pickled


def read(file: Path) -> Any:
    """What a pickle of PyTorch's holds (tensors and plain containers), or the tensors of a .safetensors by name.

    Raises:
        ValueError: not such a file, damaged, or one that holds more than that.
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)[0]
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
    size = file.stat().st_size
    if any(tensor.numel() * tensor.element_size() > size for tensor in _tensors(content)):
        raise ValueError(f"{file} is refused: a tensor in it claims to be larger than the file")
    return content


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


class _ArchiveError(Exception):
    """What is wrong with an archive, as the end of a sentence that begins with its name."""


def _check_archive(file: Path) -> None:
    """Intact, and no larger inside than outside: PyTorch stores without compression and checks no sums."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as start:
            begins = start.read(16)
        if begins.startswith(BEFORE_1_6):
            raise _ArchiveError(
                "is in PyTorch's format before version 1.6: if you trust it, save it anew with "
                "torch.save(torch.load(OLD, weights_only=True), NEW)"
            )
        cut = begins.startswith(b"PK")
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
