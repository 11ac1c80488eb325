"""The bound that validations estimate: of the averaged weights, over chunks of examples on all processes."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.data.conditioning import Batch
from ddpm.data.pixels import unit
from ddpm.diffusion.budget import estimate_bound
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.loggers.by_t import BINS, means_by_t
from ddpm.randomness import generator
from ddpm.training.monitor import TIMESTEPS


class Mean(NamedTuple):
    """Of all examples, in bits/dim: the bound, and its terms averaged in bins of t (`loggers.by_t`)."""

    bits_per_dim: float
    by_t: list[float]


class EstimatedBound:
    """Accumulates unbiased estimates of the bound; chunk k has the same noise whichever process it comes to.

    Args:
        p: the process with averaged weights.
    """

    def __init__(self, p: ReverseProcess, seed: int) -> None:
        self.p, self.seed, self.steps = p, seed, min(TIMESTEPS, p.q.T)
        self._seen: list[tuple[Tensor, list[float]]] = []  # bits/dim of each image; the terms' sum, by t

    def update(self, chunk: int, batch: Batch) -> None:
        """Take in the examples of a chunk, of which there may be none where other processes have a chunk more."""
        values, condition = batch
        if not len(values):
            return
        x_0 = unit(values)
        draw = generator(values.device, self.seed, chunk)
        found = estimate_bound(self.p.given(condition), x_0, draw, num_timesteps=self.steps)
        scale = x_0[0].numel() * math.log(2)
        by_t = means_by_t(found.t.cpu(), (found.shares / scale).cpu(), self.p.q.T)
        self._seen.append((found.nats / scale, by_t))

    def compute(self, sum_over_processes: Callable[[Sequence[float]], list[float]]) -> Mean:
        """The mean over the examples of all processes, each of which must ask; then there are none."""
        seen, self._seen = self._seen, []
        bits = torch.cat([part for part, _ in seen]).double().sum() if seen else 0.0
        by_t = torch.tensor([[0.0] * min(BINS, self.p.q.T), *(part for _, part in seen)], dtype=torch.float64).sum(0)
        count = sum(len(part) for part, _ in seen)
        total, everyone, *terms = sum_over_processes([float(bits), count, *by_t.tolist()])
        return Mean(total / everyone, [term / everyone for term in terms])
