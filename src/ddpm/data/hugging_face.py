"""Pictures that the `datasets` library reads: OWNER/NAME on the Hugging Face Hub, or a local folder or parquet file.

The library (version 4 or later) runs no code of a dataset's. It keeps what it fetches in its own cache.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from ddpm.config.errors import first_line
from ddpm.data.dataset import TEST_SPLITS, DataError, Split
from ddpm.data.encoded import Source
from ddpm.data.folder import Folder, hold_out

INSTALL = "pip install 'datasets>=4'"
SAMPLED = 1000  # pictures of a split whose bytes are part of its fingerprint


class HuggingFace(Folder):
    """Pictures in a column of a dataset, made uint8 of one shape as those of a `Folder` are.

    Args:
        size: (height, width), or one number for both.
        path: OWNER/NAME on the Hub; a local folder or .parquet file of this name goes before it.
        subset: which of the dataset's configurations, where it has several.
        revision: a commit, branch or tag on the Hub; a commit makes sure that the pictures stay the same.
        image_column: by default the only one that holds images.
        label_column: by default the only one of classes, if there is one.
        train_split: the name of the split to train on.
        test_split: of the one to test on: by default test, validation, valid or val; where there is none, the share
            `held_out` of the rows to train on, chosen by a hash of their numbers.

    The others are `Folder`'s.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        path: str | None = None,
        name: str = "hf",
        subset: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        train_split: str = "train",
        test_split: str | None = None,
        channels: int = 3,
        held_out: float = 0.1,
        background: int | Sequence[int] = 255,
        on_error: str = "raise",
        array_gib: float = 8.0,
        horizontal_flip: bool = False,
        root: str = "data",
    ) -> None:
        super().__init__(size, path, name, channels, held_out, background, on_error, array_gib, horizontal_flip, root)
        self.address, self.subset, self.revision = path, subset, revision
        self.image_column, self.label_column = image_column, label_column
        self.train_split, self.test_split = train_split, test_split

    @cached_property
    def sources(self) -> dict[Split, Source]:
        """The rows of both splits, fetched if need be, not decoded. Raises DataError."""
        splits = self._load()
        names = ", ".join(map(str, splits))
        for key, wanted in (("train_split", self.train_split), ("test_split", self.test_split)):
            if wanted is not None and wanted not in splits:
                raise DataError(f"data.{key}={wanted}: {self.address} has {names}")
        train = splits[self.train_split]
        others = [each for each in TEST_SPLITS if each in splits and each != self.train_split]
        test = self.test_split or next(iter(others), None)
        if test is not None:
            return {"train": self._rows(train), "test": self._rows(splits[test])}
        chosen, rest = hold_out([b"%d" % row for row in range(len(train))], self.held_out, Path(str(self.address)))
        return {"train": self._rows(train, rest), "test": self._rows(train, chosen)}

    def _load(self) -> dict[str, Any]:
        """The library's datasets by the names of their splits."""
        try:
            import datasets
        except ImportError:
            raise ImportError(f"data={self.name} needs an extra dependency: {INSTALL}") from None
        if not self.address:
            raise DataError(
                "data.path= is missing: data.path=OWNER/NAME, as on the Hugging Face Hub, or a local folder or .parquet"
            )
        here = self.path.exists()
        if not here and self.address.count("/") != 1:
            raise DataError(f"data.path={self.address} is neither a local folder or file nor OWNER/NAME, as on the Hub")
        try:
            if here and any((self.path / file).is_file() for file in ("dataset_dict.json", "state.json")):
                loaded = datasets.load_from_disk(str(self.path))
            elif here and self.path.is_file():
                loaded = datasets.load_dataset("parquet", data_files=str(self.path))
            else:
                where = str(self.path) if here else self.address
                loaded = datasets.load_dataset(where, self.subset, revision=None if here else self.revision)
        except Exception as error:  # whatever a network, a server, a damaged file or an unknown format make it raise
            hint = "" if here else " (it needs a network, or HF_HOME with a copy of the dataset)"
            if here and isinstance(error, IndexError):  # what the library makes of files that it has saved itself
                hint = " (a split without rows, or a damaged file: each split needs some)"
            reasons = dict.fromkeys(first_line(each) for each in (error, _first_cause(error)))
            raise DataError(f"data.path={self.address} cannot be read: {': '.join(reasons)}{hint}") from error
        return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}

    def _rows(self, table: Any, rows: Sequence[int] | None = None) -> "Rows":
        import datasets

        image = self._column(table, "image_column", self.image_column, datasets.Image)
        if image is None:
            raise DataError(
                f"data.path={self.address} has no column of images, or several: say which with data.image_column=, one "
                f"of {', '.join(table.column_names)}"
            )
        label = self._column(table, "label_column", self.label_column, datasets.ClassLabel)
        chosen = np.arange(len(table)) if rows is None else np.array(rows, np.int64)
        labels = None if label is None else self._labels(table, label)
        labels = None if labels is None else labels[torch.from_numpy(chosen)]
        inside = [self.path.resolve()] if self.path.is_dir() else []
        return Rows(
            table.select_columns([image]),
            image,
            chosen,
            labels,
            [*inside, Path(datasets.config.HF_CACHE_HOME).resolve()],
        )

    def _column(self, table: Any, key: str, named: str | None, kind: type) -> str | None:
        """The column that is named, or the only one of this kind."""
        if named is not None and named not in table.column_names:
            raise DataError(f"data.{key}={named}: the columns of {self.address} are {', '.join(table.column_names)}")
        fitting = [name for name, feature in table.features.items() if isinstance(feature, kind)]
        return named or (fitting[0] if len(fitting) == 1 else None)

    def _labels(self, table: Any, column: str) -> Int64[Tensor, " n"] | None:
        """The class of every row; None where a row has none, as in splits whose classes are not published."""
        values = np.asarray(table.select_columns([column]).with_format("numpy")[column][:])
        if not np.issubdtype(values.dtype, np.integer) or values.ndim != 1:
            raise DataError(f"data.label_column={column} does not hold whole numbers, as classes are")
        return None if values.size and values.min() < 0 else torch.from_numpy(values.astype(np.int64))


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class Rows(Source):
    """Rows of a table of encoded pictures.

    The fingerprint is of the sizes of all pictures, and of the bytes of `SAMPLED` at even distances, not of paths.

    Args:
        rows: of the table, in their order here.
        inside: folders within which a picture may lie that a row names rather than holds.
    """

    def __init__(
        self,
        table: Any,
        column: str,
        rows: NDArray[np.int64],
        labels: Int64[Tensor, " n"] | None,
        inside: Sequence[Path],
    ) -> None:
        self.table, self.column, self.rows, self.labels, self.inside = table, column, rows, labels, inside
        content, state = hashlib.sha256(), hashlib.sha256()
        content.update(self._sizes(state).tobytes())
        for index in range(0, len(rows), max(1, len(rows) // SAMPLED)):
            content.update(hashlib.sha256(self._parts(int(rows[index]))[0] or b"").digest())
        state.update(content.digest())
        self.fingerprint, self.state = content.hexdigest()[:12], state.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"row {self.rows[index]}"

    def read(self, index: int) -> bytes:
        held, path = self._parts(int(self.rows[index]))
        return held if held is not None else self._file(path).read_bytes()

    def _parts(self, row: int) -> tuple[bytes | None, str]:
        """The bytes of a picture, as they are stored, or None, and the path that stands beside or instead of them."""
        value = self.table.data.column(self.column)[row].as_py()
        if not isinstance(value, dict):
            return value, ""
        return value.get("bytes"), str(value.get("path") or "")

    def _file(self, path: str) -> Path:
        """The file that a row names. A stranger's row may name any: it must lie where the dataset does."""
        file = Path(path)
        if not path or not any(Path(os.path.abspath(file)).is_relative_to(folder) for folder in self.inside):
            raise DataError(f"it holds no picture, but refers to {path!r}, which is not part of the dataset")
        return file

    def _sizes(self, state: Any) -> NDArray[np.int64]:
        """Bytes of each picture, from the table's index; of files that rows name, `state` takes their times."""
        import pyarrow as pa
        import pyarrow.compute as pc

        sizes = []
        for chunk in self.table.data.column(self.column).chunks:
            struct = pa.types.is_struct(chunk.type) and chunk.type.get_field_index("bytes") >= 0
            held = chunk.field("bytes") if struct else chunk
            if not (pa.types.is_binary(held.type) or pa.types.is_large_binary(held.type)):
                raise DataError(f"data.image_column={self.column} holds {chunk.type}, not encoded pictures")
            sizes.append(pc.binary_length(held).fill_null(-1).to_numpy(zero_copy_only=False))
        found = np.concatenate(sizes).astype(np.int64)[self.rows] if sizes else np.zeros(0, np.int64)
        for index in np.flatnonzero(found < 0):
            try:
                about = os.stat(self._file(self._parts(int(self.rows[index]))[1]))
            except (OSError, DataError):  # reading it fails, which `on_error` is for
                continue
            found[index] = about.st_size
            state.update(b"%d\0" % about.st_mtime_ns)
        return found
