"""One DataModule for every dataset.

The values of a batch are what the dataset holds, uint8 [b, C, H, W] or float points [b, 2]: they are scaled
(`pixels.to_unit`) and flipped (`pixels.flip`) on the training device.
"""

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ddpm.data.conditioning import ConditionedBatch, Conditioning, Unconditional
from ddpm.data.dataset import SPLITS, DataError, Examples, InMemory, Resident, Split
from ddpm.data.dataset import Dataset as ImagesOrPoints
from ddpm.data.order import Order, check_parts

LARGEST_SUBSET = 1000  # training examples whose bound is beside the validation's: enough to see where it goes


class Batches(Dataset[ConditionedBatch]):
    """Examples of a split with what the network is told of them, a batch at a time."""

    def __init__(self, examples: Examples, conditioning: Conditioning) -> None:
        self.examples, self.conditioning = examples, conditioning

    def __len__(self) -> int:
        return len(self.examples)

    def __getitems__(self, indices: list[int]) -> ConditionedBatch:
        return self.conditioning.batch(self.examples, indices)


class InChunks(Dataset[tuple[int, ConditionedBatch]]):
    """The first `count` examples by the chunk: item k is (k, examples k size to (k + 1) size).

    The last may be short, and those beyond it are empty.
    """

    def __init__(self, examples: Examples, count: int, size: int, conditioning: Conditioning) -> None:
        self.examples, self.count, self.size, self.conditioning = examples, count, size, conditioning

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __getitem__(self, k: int) -> tuple[int, ConditionedBatch]:
        start, stop = k * self.size, min((k + 1) * self.size, self.count)
        if start >= stop:
            first = self.conditioning.batch(self.examples, [0])
            return k, ConditionedBatch(first.values[:0], None)
        return k, self.conditioning.batch(self.examples, range(start, stop))


class Loader:
    """A DataLoader as Lightning sees it: an iterable with a length.

    Behind this Lightning leaves the sampler alone and gives no advice on workers, which are of no use to examples in
    memory. What goes wrong in a worker is told in one line, without the worker's traceback.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.loader
        except DataError as error:
            raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2].strip()) from error

    def state_dict(self) -> dict[str, Any]:
        """Nothing, which tells Lightning that a run can be resumed: where, the global step says."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def _as_is(batch: Any) -> Any:
    return batch


class DataModule(LightningDataModule):
    """Training batches in the order of `Order`; the test split in chunks, each example exactly once across processes.

    `batch_size` is global: all processes and all accumulated micro-batches together. `num_workers` processes decode
    where examples are decoded as they are needed; examples in memory use none. `chunk` is the size of a test chunk, and
    `validated` how many examples are in such chunks, the first of the test split; None: all of it.
    `processes` is how many will share the batches: what cannot be shared out among them is refused at once.
    `resident` keeps decoded examples on the device; "auto" on a GPU, if a quarter of its free memory holds a split.
    `conditioning` says what the network is told of each example, by default nothing.
    """

    def __init__(
        self,
        dataset: ImagesOrPoints,
        batch_size: int,
        seed: int,
        max_steps: int,
        accumulate: int = 1,
        num_workers: int = 0,
        chunk: int = 100,
        resident: bool | Literal["auto"] = False,
        processes: int = 1,
        conditioning: Conditioning | None = None,
        validated: int | None = None,
    ) -> None:
        super().__init__()
        if num_workers < 0:
            raise DataError(f"loader.num_workers={num_workers}: it must be at least 0")
        if chunk < 1:
            raise DataError(f"chunk={chunk}: it must be at least 1")
        check_parts(batch_size, processes, accumulate)
        self.dataset = dataset
        self.batch_size, self.seed, self.max_steps = batch_size, seed, max_steps
        self.accumulate, self.num_workers, self.chunk = accumulate, num_workers, chunk
        self.resident, self.conditioning, self.validated = resident, conditioning or Unconditional(), validated

    def prepare_data(self) -> None:
        self.dataset.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Open both splits.

        Raises:
            DataError: the batches cannot be shared out as asked for, or the examples are not as the dataset says.
        """
        self.conditioning.check(self.dataset)
        self.train, self.test = (self._placed(self._checked(split)) for split in SPLITS)
        self._order()

    def train_dataloader(self) -> Loader:
        """Batches, uint8 [b, C, H, W], from the trainer's global step to `max_steps`."""
        return self._loader(self.train, Batches(self.train, self.conditioning), batch_sampler=self._order())

    def val_dataloader(self) -> Loader:
        """(k, batch) for every world_size-th chunk k of the test split, or of its first `validated` examples.

        All processes get as many, the last of them empty where there are too few: Lightning leaves out a validation
        without batches, and the other processes would wait for its end.
        """
        return self._in_chunks(self.test, self.validated or len(self.test))

    def train_subset_dataloader(self) -> Loader:
        """Loads chunks of the first training examples: as many as are validated, and at most `LARGEST_SUBSET`."""
        return self._in_chunks(self.train, min(self.validated or len(self.test), len(self.test), LARGEST_SUBSET))

    def _in_chunks(self, examples: Examples, count: int) -> Loader:
        rank, world_size = self._place()
        chunks = InChunks(examples, min(count, len(examples)), self.chunk, self.conditioning)
        each = math.ceil(len(chunks) / world_size)
        return self._loader(examples, chunks, batch_size=None, sampler=range(rank, each * world_size, world_size))

    @property
    def advice(self) -> str:
        """What to change where training waits for data."""
        if self.train.in_memory:
            return "the examples are mapped from disk: keep the cache on a faster one, data.root=FOLDER"
        gib = len(self.train) * math.prod(self.dataset.shape) / 2**30
        return (
            f"raise loader.num_workers (now {self.num_workers}; this machine has {os.cpu_count()} cores), or decode "
            f"once and for all with data.array_gib={math.ceil(gib)}"
        )

    def _order(self) -> Order:
        rank, world_size = self._place()
        return Order(
            len(self.train),
            self.batch_size,
            self.seed,
            self.max_steps,
            start=self.trainer.global_step if self.trainer else 0,
            accumulate=self.accumulate,
            rank=rank,
            world_size=world_size,
        )

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _checked(self, split: Split) -> Examples:
        """The examples of a split, of which the first is as the dataset says; others would be broadcast or rescaled."""
        examples = self.dataset.split(split)
        try:
            first = examples.__getitems__([0])
        except DataError:  # said where it is needed
            return examples
        due = self.dataset.kind.stored(torch.zeros(1, *self.dataset.shape))
        if (first.dtype, first.shape) != (due.dtype, due.shape):
            raise DataError(
                f"{self.dataset.name}: the first {split} example is {first.dtype} {list(first.shape[1:])}, and by the "
                f"dataset's shape and kind it is {due.dtype} {list(due.shape[1:])}"
            )
        return examples

    def _placed(self, examples: Examples) -> Examples:
        """The examples on the device, where `resident` says so and they are one array."""
        if not isinstance(examples, InMemory):
            return examples
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        wanted = self.resident
        if wanted == "auto":
            wanted = device.type == "cuda" and examples.values.nbytes < torch.cuda.mem_get_info(device)[0] / 4
        return Resident(examples, device) if wanted else examples

    def _loader(self, examples: Examples, items: Dataset[Any], **how: Iterable[Any] | None) -> Loader:
        workers = 0 if examples.in_memory else self.num_workers
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        loader: DataLoader[Any] = DataLoader(
            items,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_as_is,
            pin_memory=cuda and not isinstance(examples, Resident),
            **how,  # type: ignore[arg-type]
        )
        return Loader(loader)
