"""Which examples make up global batch k: a function of the seed and of k, and of nothing else.

The permutations of epochs 0, 1, 2, ... are laid end to end; global batch k is the stretch [k B, (k + 1) B) of that
stream. It is cut into `accumulate` micro-batches and each of those into a part per process, all contiguous, so that the
examples of a step do not depend on how many processes share it, and a resumed run needs no more than the step.
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


def per_process(batch_size: int, world_size: int = 1, accumulate: int = 1) -> int:
    """Examples in one micro-batch of one process.

    Raises DataError, with the nearest sizes that work, if the global batch does not divide.
    """
    for name, value in (("loader.batch_size", batch_size), ("accumulate", accumulate)):
        if value < 1:
            raise DataError(f"{name}={value}: it must be at least 1")
    parts = world_size * accumulate
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        nearest = f"{below} or {above}" if below else f"{above}"
        raise DataError(
            f"loader.batch_size={batch_size} does not divide over {world_size} processes x {accumulate} accumulated "
            f"batches: use {nearest}"
        )
    return batch_size // parts


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
        self.size = per_process(batch_size, world_size, accumulate)
        if batch_size > n:
            raise DataError(f"loader.batch_size={batch_size} is more than the {n} training examples: use {n} at most")

    def __len__(self) -> int:
        return self.stop * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, torch.empty(0)
        for step in range(self.start, self.stop):
            for micro in range(self.accumulate):
                first = step * self.batch_size + (micro * self.world_size + self.rank) * self.size
                batch: list[int] = []
                while len(batch) < self.size:
                    e, offset = divmod(first + len(batch), self.n)
                    if e != epoch:
                        epoch, order = e, permutation(self.n, self.seed, e)
                    batch += order[offset : offset + self.size - len(batch)].tolist()
                yield batch
