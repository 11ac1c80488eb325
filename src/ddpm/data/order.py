"""Which examples make up global batch k: a function of the seed and of k, and of nothing else.

The permutations of epochs 0, 1, 2, ... are laid end to end; global batch k is the stretch [k B, (k + 1) B) of that
stream. It is cut into a part for each of `accumulate` micro-batches and each process, all contiguous and as equal as
they can be, so that the examples of a step do not depend on how many processes share it, and a resumed run needs no
more than the step.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Sampler

from ddpm.data.dataset import DataError
from ddpm.randomness import generator


def permutation(n: int, seed: int, epoch: int) -> Int64[Tensor, "{n}"]:
    """The order of n examples in an epoch."""
    return torch.randperm(n, generator=generator("cpu", seed, epoch))


def part_of(batch_size: int, parts: int, k: int) -> slice:
    """Where part k = 0, 1, ... lies in a global batch that is cut into `parts`; their sizes differ by one at most.

    Parts are counted micro-batch by micro-batch and, within one, process by process.
    """
    return slice(k * batch_size // parts, (k + 1) * batch_size // parts)


def check_parts(batch_size: int, world_size: int = 1, accumulate: int = 1) -> None:
    """Check that every process has an example of the global batch in each micro-batch.

    Raises:
        DataError: one would have none.
    """
    for name, value in (("loader.batch_size", batch_size), ("trainer.accumulate", accumulate)):
        if value < 1:
            raise DataError(f"{name}={value}: it must be at least 1")
    if batch_size < (parts := world_size * accumulate):
        raise DataError(
            f"loader.batch_size={batch_size} is too few for {world_size} processes x {accumulate} accumulated batches: "
            f"use {parts} at least"
        )


class Order(Sampler[list[int]]):
    """The index lists of one process, from step `start` to step `stop`, a list per micro-batch.

    `len` counts the micro-batches from step 0, as Lightning does when it goes on in the middle of a run.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        stop: int,
        *,
        start: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.start, self.stop, self.accumulate = start, stop, accumulate
        self.rank, self.world_size = rank, world_size
        check_parts(batch_size, world_size, accumulate)
        if batch_size > n:
            raise DataError(f"loader.batch_size={batch_size} is more than the {n} training examples: use {n} at most")

    def __len__(self) -> int:
        return self.stop * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order, parts = -1, torch.empty(0), self.world_size * self.accumulate
        for step in range(self.start, self.stop):
            for micro in range(self.accumulate):
                mine = part_of(self.batch_size, parts, micro * self.world_size + self.rank)
                size = mine.stop - mine.start
                batch: list[int] = []
                while len(batch) < size:
                    e, offset = divmod(step * self.batch_size + mine.start + len(batch), self.n)
                    if e != epoch:
                        epoch, order = e, permutation(self.n, self.seed, e)
                    batch += order[offset : offset + size - len(batch)].tolist()
                yield batch
