"""Pictures that the user has: a folder, a zip or tar archive, or an LMDB, LSUN's own format."""

import hashlib
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NoReturn

import torch
from jaxtyping import Int64
from torch import Tensor

from ddpm.data.archive import unpacked
from ddpm.data.dataset import SPLITS, TEST_SPLITS, DataError, Dataset, Examples, Split
from ddpm.data.encoded import Files, Source, examples, one_line
from ddpm.data.lsun import Lmdb, is_lmdb
from ddpm.data.pairs import partners
from ddpm.data.picture import PictureTransform, is_picture
from ddpm.messages import warn

MAX_SIDE = 8192  # pixels of a side: more than a network of this kind has ever made, and less than exhausts a machine


class Folder(Dataset):
    """Pictures of any format, mode and size, made uint8 of one shape by `picture.PictureTransform`.

    Where there is a `test` folder, or `val` (`valid`, `validation`) and `train` and no other, it is the test split; so
    is for LSUN an LMDB whose name has `val` for `train`. Beside `train` and `test`, `val` is in neither split. Else the
    share `held_out` is the test split, at least one picture, chosen by a hash of each name: a picture that joins or
    leaves moves hardly any other. If every picture lies in one of two or more sub-folders, these are the classes.

    Args:
        path: folder or archive, `root`/`name` by default.
        size: (height, width), or one number for both.
        channels: 3, or 1 for gray.
        background: what transparent pictures are laid over, a gray level or (red, green, blue), 0..255.
        on_error: "raise" or "skip", when a picture cannot be read.
        condition_path: a second folder or archive with a picture of the same name for each, which the network is told
            (`condition=image condition.source=paired`).
        array_gib: decode once into a cached array if a split takes at most so many GiB, else whenever needed.
        root: where caches and unpacked archives are kept.
    """

    classes = None

    def __init__(
        self,
        size: int | Sequence[int],
        path: str | None = None,
        name: str = "folder",
        channels: int = 3,
        held_out: float = 0.1,
        background: int | Sequence[int] = 255,
        on_error: str = "raise",
        array_gib: float = 8.0,
        horizontal_flip: bool = False,
        root: str = "data",
        condition_path: str | None = None,
    ) -> None:
        height, width = _numbers("size", size, 2)
        red, green, blue = _numbers("background", background, 3)
        fits = 1 <= min(height, width) <= max(height, width) <= MAX_SIDE
        _check("size", [height, width], fits, f"[height, width], from 1 to {MAX_SIDE:,} each")
        _check("background", background, all(0 <= v <= 255 for v in (red, green, blue)), "levels from 0 to 255")
        _check("channels", channels, channels in (1, 3), "1 or 3")
        _check("held_out", held_out, 0 < held_out < 1, "between 0 and 1")
        _check("on_error", on_error, on_error in ("raise", "skip"), "raise or skip")
        self.name = name
        self.horizontal_flip = horizontal_flip
        self.transform = PictureTransform(channels, height, width, (red, green, blue))
        self.shape = self.transform.shape
        self.held_out, self.on_error, self.array_bytes = held_out, on_error, array_gib * 2**30
        self.root = Path(root).expanduser()
        self._told = False
        self.unused: list[str] = []  # sub-folders whose pictures are in neither split
        self.path = Path(path).expanduser() if path else self.root / name
        self.condition_path = Path(condition_path).expanduser() if condition_path else None
        if condition_path and on_error == "skip":
            raise DataError("data.on_error=skip would part pairs: data.condition_path needs data.on_error=raise")

    @cached_property
    def sources(self) -> dict[Split, Source]:
        """What is there, listed but not decoded. Raises DataError."""
        if not self.path.exists():
            raise DataError(
                f"there is nothing at {self.path.absolute()}: put the pictures of data={self.name} there, or say where "
                f"they are with data.path=FOLDER_OR_ARCHIVE"
            )
        folder = self.path if self.path.is_dir() else unpacked(self.path, self.root)
        return self._lmdbs(folder) or self._files(folder)

    @cached_property
    def partners(self) -> dict[Split, Files]:
        """What is told of each picture of a split, where there is a second folder. Raises DataError."""
        if self.condition_path is None:
            return {}
        if not self.condition_path.exists():
            raise DataError(f"data.condition_path: there is nothing at {self.condition_path.absolute()}")
        own = self.condition_path
        folder = own if own.is_dir() else unpacked(own, self.root)
        names = list_pictures(folder)
        return {split: partners(source, folder, names) for split, source in self.sources.items()}

    def prepare(self) -> None:
        tell, self._told = not self._told, True  # a run prepares its data before the data module does
        for name in SPLITS:
            self._examples(name, tell)
        for unused in self.unused if tell else ():
            warn(f"the pictures in {self.path / unused} are in neither split: there is another folder to test on")

    def split(self, name: Split) -> Examples:
        return self._examples(name)

    @property
    def num_classes(self) -> int:
        labels = [source.labels for source in self.sources.values() if source.labels is not None]
        return 1 + max(int(each.max()) for each in labels) if labels else 0

    @property
    def fingerprint(self) -> str:
        train, test = self.sources["train"], self.sources["test"]
        sizes = f"{len(train)}+{len(test)}" + " less those skipped" * (self.on_error == "skip")
        told = f" told {'+'.join(self.partners[split].fingerprint for split in SPLITS)}" if self.partners else ""
        return f"{self.name} {sizes} {self.transform} {train.fingerprint}+{test.fingerprint}{told}"

    @property
    def state(self) -> str:
        told = [source.state for source in self.partners.values()]
        return " ".join([self.fingerprint, *(self.sources[split].state for split in SPLITS), *told])

    def _examples(self, split: Split, tell: bool = False) -> Examples:
        made = self._decoded(self.sources[split], f"{self.name}-{split}", tell)
        if self.partners:
            made.partners = self._decoded(self.partners[split], f"{self.name}-{split}-condition", tell)
        return made

    def _decoded(self, source: Source, name: str, tell: bool) -> Examples:
        return examples(
            source,
            self.transform,
            root=self.root,
            name=name,
            on_error=self.on_error,
            array_bytes=self.array_bytes,
            tell=tell,
        )

    def _lmdbs(self, folder: Path) -> dict[Split, Source] | None:
        """One LMDB, or the only `*_train_lmdb` in the folder, with its `*_val_lmdb` if that is there."""
        if not is_lmdb(folder):
            inside = [child for child in sorted(folder.glob("*train_lmdb")) if is_lmdb(child)]
            if not inside:
                return None
            if len(inside) > 1:
                raise DataError(f"{folder} has {len(inside)} LMDBs to train on: name one, data.path={inside[0]}")
            folder = inside[0]
        train = Lmdb(folder, self.root)
        val = folder.with_name(folder.name.replace("train", "val"))
        if val != folder and is_lmdb(val):
            return {"train": train, "test": Lmdb(val, self.root)}
        chosen, rest = hold_out([train.keys[k] for k in range(len(train))], self.held_out, folder)
        return {
            "train": Lmdb(folder, self.root, train.keys.chosen(rest)),
            "test": Lmdb(folder, self.root, train.keys.chosen(chosen)),
        }

    def _files(self, folder: Path) -> dict[Split, Source]:
        names = list_pictures(folder)
        if not names:
            raise DataError(f"there are no pictures in {self.path}: it should hold .png, .jpg or the like at any depth")
        held, self.unused = _split_folders(names, [each.name for each in folder.iterdir() if each.is_dir()])
        names = [name for name in names if _top(name) not in self.unused]
        if held:
            test = [i for i, name in enumerate(names) if _top(name) == held]
            train = [i for i, name in enumerate(names) if _top(name) != held]
            for part, found in (("in", test), ("besides", train)):
                if not found:
                    raise DataError(f"there are no pictures {part} {folder / held}: both splits need some")
            labels = _classes([re.sub(f"^(train|{re.escape(held)})/", "", name, flags=re.IGNORECASE) for name in names])
        else:
            test, train = hold_out([os.fsencode(name) for name in names], self.held_out, self.path)
            labels = _classes(names)
        train_files, test_files = (
            Files(folder, [names[i] for i in chosen], None if labels is None else labels[chosen])
            for chosen in (train, test)
        )
        return {"train": train_files, "test": test_files}


def _split_folders(names: Sequence[str], folders: Sequence[str]) -> tuple[str | None, list[str]]:
    """The sub-folder that holds the test split, if there is one, and those whose pictures are in neither split.

    Args:
        names: paths of the pictures.
        folders: the sub-folders, which may hold none.
    """
    known = {each.lower(): each for each in sorted(folders)}
    found = [known[each] for each in TEST_SPLITS if each in known]
    if "test" in known:  # beside `train`, `val` is no class
        return known["test"], found[1:] if "train" in known else []
    of_splits = {_top(name).lower() for name in names} <= {"train", *TEST_SPLITS}
    return (found[0], found[1:]) if found and "train" in known and of_splits else (None, [])


def _top(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def list_pictures(folder: Path) -> list[str]:
    """Paths, relative to the folder and sorted, of the pictures at any depth. Links to folders are followed, once."""

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"cannot list {one_line(error.filename)}: {error.strerror}") from error

    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        about = os.stat(parent)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        inside = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        names += [str(inside / file) for file in files if is_picture(inside / file)]
    return sorted(names)


def hold_out(names: Sequence[bytes], share: float, where: Path) -> tuple[list[int], list[int]]:
    """Indices of the held-out share, those whose names have the smallest hashes, and of the rest; both ascending."""
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise DataError(
            f"{where} has {len(names)} pictures, too few to hold out {share:.1%} of them for testing: add some"
        )
    ranked = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i]).digest())
    return sorted(ranked[:count]), sorted(ranked[count:])


def _classes(names: list[str]) -> Int64[Tensor, " n"] | None:
    """The number of each picture's first folder, if each is in one and there are at least two."""
    folders = [name.rpartition("/")[0].partition("/")[0] for name in names]
    number = {folder: k for k, folder in enumerate(sorted(set(folders)))}
    return None if "" in number or len(number) < 2 else torch.tensor([number[folder] for folder in folders])


def _numbers(name: str, value: int | Sequence[int], count: int) -> list[int]:
    numbers = [value] * count if isinstance(value, int) else list(value)
    whole = all(isinstance(number, int) for number in numbers)
    _check(name, value, whole and len(numbers) == count, f"1 or {count} whole numbers")
    return numbers


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise DataError(f"data.{name}={value}: it must be {expected}")
