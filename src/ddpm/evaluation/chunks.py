"""Work cut into chunks of indices: the same bits for any number of processes, kept so that nothing is done twice.

Chunk k draws from its own generator, keyed by (seed, what, k), and always has the same size (a short last one is
padded, the padding dropped): a convolution's rounding depends on its batch. Every process takes each world_size-th
chunk.
"""

import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from ddpm.data.dataset import Examples
from ddpm.diffusion.wide import with_float64
from ddpm.files import whole_file
from ddpm.launch import Rank
from ddpm.metrics.statistics import InOrder
from ddpm.randomness import generator


class Chunk(NamedTuple):
    k: int
    indices: Int64[Tensor, " n"]  # consecutive


@dataclass(frozen=True)
class Chunks:
    """How work is cut, drawn and kept: `kept` is the folder for what is finished, None for nowhere."""

    size: int
    seed: int
    rank: Rank
    kept: Path | None = None

    def of(self, n: int) -> list[Chunk]:
        """This process's part of 0..n-1."""
        mine = range(self.rank.index, -(-n // self.size), self.rank.world_size)
        return [Chunk(k, torch.arange(k * self.size, min(n, (k + 1) * self.size))) for k in mine]

    def rounds(self, n: int) -> int:
        """The most chunks of 0..n-1 that a process has."""
        return -(-n // (self.size * self.rank.world_size))

    def generator(self, what: int, k: int) -> torch.Generator:
        return generator(self.rank.device, self.seed, what, k)

    def whole(self, chunk: Chunk) -> list[int]:
        """The indices of a chunk, the last repeated up to a whole one."""
        indices: list[int] = (chunk.indices[0] + torch.arange(self.size).clamp(max=len(chunk.indices) - 1)).tolist()
        return indices

    def examples(self, examples: Examples, chunk: Chunk) -> Shaped[Tensor, "size *event"]:
        """The examples of a chunk on this process's device, the last repeated up to a whole chunk."""
        return examples.__getitems__(self.whole(chunk)).to(self.rank.device)

    def once(self, what: str, k: int, make: Callable[[], Tensor]) -> Tensor:
        """The rows of chunk k: what an earlier attempt made of it, or else `make()`, which is then kept."""
        if self.kept is None:
            return make()
        path = self.path(what, k)
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False)).to(self.rank.device)
        except (OSError, ValueError, EOFError):
            rows = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # numpy's own writer would not say that the disk is full
        np.save(content, rows.cpu().numpy(), allow_pickle=False)
        with whole_file(path) as file:
            file.write(content.getbuffer())
        return rows

    def rows(self, what: str, n: int, make: Callable[[Chunk], Tensor]) -> Float64[Tensor, "{n} k"]:
        """What `make` gives for 0..n-1, a row for each, in order; each process makes its part and gets the whole."""
        rows = InOrder().to(with_float64(self.rank.device))
        for chunk in self.of(n):
            made = self.once(what, chunk.k, functools.partial(make, chunk))
            rows.update(made[: len(chunk.indices)], chunk.indices)
        whole: Tensor = rows.compute().double()
        if len(whole) != n:
            raise RuntimeError(f"{len(whole)} examples were counted where {n} were due")
        return whole

    def has(self, what: str, k: int) -> bool:
        return self.kept is not None and self.path(what, k).exists()

    def path(self, what: str, k: int) -> Path:
        assert self.kept is not None
        return self.kept / what / f"{k:06d}.npy"

    def finished(self, what: str, n: int) -> Iterator[Tensor]:
        """The rows of 0..n-1 in order, as all processes have kept them."""
        for k in range(-(-n // self.size)):
            yield torch.from_numpy(np.load(self.path(what, k), allow_pickle=False))
