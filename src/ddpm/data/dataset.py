"""What every dataset is, and the plainest set of examples: one array in memory."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddpm.data.kind import IMAGES, Kind

Split: TypeAlias = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
TEST_SPLITS = ("test", "validation", "valid", "val")  # names of such a split, in the order in which one is looked for


class DataError(ValueError):
    """The data is not what was asked for. One line: what happened, to which file, and what to do about it."""


class Examples(torch.utils.data.Dataset[Tensor], ABC):
    """The examples of one split: uint8 [n, C, H, W], or float [n, 2] for points in the plane.

    `labels` holds a class per example where the source has classes, `partners` an image per example where the source
    has pairs. `in_memory` says that a batch is a gather from one
    array, which worker processes could only slow down.
    """

    labels: Int64[Tensor, " n"] | None
    partners: "Examples | None" = None
    in_memory: bool

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, indices: list[int]) -> Shaped[Tensor, "b *event"]:
        """The batch with these indices, in this order."""

    def __getitem__(self, index: int) -> Shaped[Tensor, "*event"]:
        return self.__getitems__([index])[0]


def readable(examples: Examples, count: int) -> list[int]:
    """Indices of up to `count` examples that can be read: at equal distances first, and then of those between."""
    n, found = len(examples), list[int]()
    stride = max(1, n // count)
    for index in (index for first in range(stride) for index in range(first, n, stride)):
        if len(found) == count:
            break
        try:
            examples.__getitems__([index])
        except DataError:
            continue
        found.append(index)
    return found


class InMemory(Examples):
    """Examples that are rows of one array, which may be mapped from a file."""

    in_memory = True

    def __init__(self, values: Shaped[Tensor, "n *event"], labels: Int64[Tensor, " n"] | None = None) -> None:
        self.values = values
        self.labels = labels

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: list[int]) -> Shaped[Tensor, "b *event"]:
        # numpy copies row by row in this thread. PyTorch would go byte by byte (values[i]) or wake a pool of threads
        # for each batch (index_select), which on a busy machine takes ten times as long.
        return torch.from_numpy(self.values.numpy().take(indices, axis=0))


class Resident(Examples):
    """Examples in memory, copied to a device: a batch is gathered there, and only its indices travel."""

    in_memory = True

    def __init__(self, examples: InMemory, device: torch.device) -> None:
        self.values, self.labels = examples.values.to(device), examples.labels
        if isinstance(examples.partners, InMemory):
            self.partners = Resident(examples.partners, device)

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: list[int]) -> Shaped[Tensor, "b *event"]:
        chosen = torch.tensor(indices, pin_memory=self.values.is_cuda)  # from pinned memory nobody waits for the copy
        return self.values[chosen.to(self.values.device, non_blocking=True)]


class Dataset(ABC):
    """A source of examples in two splits.

    `shape` is known before any data is read, since the network is built from it. `kind` says what examples are, and
    with it what their bound is called, how samples are stored, and so on.
    """

    name: str
    shape: tuple[int, ...]
    event_ndim: ClassVar[int] = 3  # dimensions of an example; 0: as many as `shape` has in the configuration
    classes: ClassVar[int | None] = 0  # into which its examples are sorted; None: only the data tell
    kind: Kind = IMAGES
    horizontal_flip: bool = False

    @abstractmethod
    def prepare(self) -> None:
        """Download, decode and cache what is missing. Called in one process per machine; cheap when repeated."""

    @abstractmethod
    def split(self, name: Split) -> Examples:
        """The examples of a split. `prepare` has been called, here or in another process."""

    @property
    def num_classes(self) -> int:
        """How many classes there are, 0 for none; where only the data tell, they are looked at."""
        return self.classes or 0

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What the numbers of an evaluation depend on: source, sizes of the splits, resize rule. Paths are left out."""

    @property
    def state(self) -> str:
        """What a result kept on this machine depends on: the fingerprint, and what tells that files were rewritten."""
        return self.fingerprint
