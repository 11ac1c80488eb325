"""The samples that an evaluation measures and shows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.pixels import numbers, to_uint8
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation.chunks import Chunk, Chunks
from ddpm.processes import RunFailedError

SAMPLES = 1  # what a chunk's generator is for
CHAINS, STATES = 6, 13  # in the picture of the reverse process


class Samples:
    """Samples of a reverse process in chunks; those of chunk k are the same whichever process draws them.

    Args:
        shape: of one image.
        precision: entered around every evaluation of the network.
        told: what p is told of the samples with these indices.
    """

    def __init__(
        self,
        p: ReverseProcess,
        sampler: Sampler,
        shape: Sequence[int],
        chunks: Chunks,
        precision: Callable[[], AbstractContextManager[None]],
        told: Callable[[Sequence[int]], Condition | None] = lambda indices: None,
    ) -> None:
        self.p, self.sampler, self.shape, self.chunks, self.precision = p, sampler, shape, chunks, precision
        self.told = told

    def of(self, chunk: Chunk) -> UInt8[Tensor, "n c h w"]:
        """The samples of one chunk, drawn or as an earlier attempt has kept them."""

        def draw() -> Tensor:
            generator = self.chunks.generator(SAMPLES, chunk.k)
            first = int(chunk.indices[0])
            p = self._given(range(first, first + self.chunks.size))
            with self.precision():
                *_, last = self.sampler(p, self._x_T(self.chunks.size, generator), generator)
            try:
                return to_uint8(numbers(last.x_t))[: len(chunk.indices)]
            except ValueError as error:
                raise RunFailedError(f"nothing is measured: {error}") from error

        return self.chunks.once("samples", chunk.k, draw)

    def labels(self, chunk: Chunk) -> Tensor | None:
        """The classes that p is told of the samples of a chunk, if it is told classes."""
        told = self.told(chunk.indices.tolist())
        return told.labels if told else None

    def finished(self, n: int) -> Iterator[UInt8[Tensor, "n c h w"]]:
        """All n samples in order, as the processes have kept them."""
        return self.chunks.finished("samples", n)

    def chain(self) -> list[UInt8[Tensor, "n c h w"]]:
        """A few samples on their way from x_T to x_0, more states towards the end, where there is more to see."""
        generator = self.chunks.generator(SAMPLES, 0)
        x_T = self._x_T(CHAINS, generator)
        with self.precision():
            states = [x_T, *(state.x_t for state in self.sampler(self._given(range(CHAINS)), x_T, generator))]
        shown = [round((1 - (1 - i / (STATES - 1)) ** 2) * (len(states) - 1)) for i in range(STATES)]
        return [to_uint8(states[k]).cpu() for k in dict.fromkeys(shown)]

    def _given(self, indices: Sequence[int]) -> ReverseProcess:
        told = self.told(indices)
        return self.p.given(told)

    def _x_T(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn((n, *self.shape), generator=generator, device=self.chunks.rank.device)
