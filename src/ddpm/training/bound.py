"""The bound that validations estimate: of the averaged weights, over chunks of examples on all processes."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from ddpm.data.conditioning import ConditionedBatch
from ddpm.data.pixels import unit
from ddpm.diffusion.budget import estimate_bound
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.loggers.by_t import BINS, means_by_t
from ddpm.randomness import generator
from ddpm.training.monitor import TIMESTEPS


class Mean(NamedTuple):
    """Holds what was measured of all examples, in bits/dim: the bound, and its terms by bins of t (`loggers.by_t`)."""

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

    def update(self, chunk: int, batch: ConditionedBatch) -> None:
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

    @torch.no_grad()
    def over(
        self,
        batches: Iterable[tuple[int, ConditionedBatch]],
        trainer: L.Trainer,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Take in all of these chunks outside of the Trainer's loop, in the precision of its validations.

        Args:
            between: called before each chunk; it may end the run by raising.
        """
        with trainer.precision_plugin.val_step_context():
            for batch in batches:
                between()
                self.update(*move_data_to_device(batch, trainer.strategy.root_device))

    def compute(self, sum_over_processes: Callable[[Tensor], Tensor]) -> Mean:
        """The mean over the examples of all processes, each of which must ask; then there are none."""
        seen, self._seen = self._seen, []
        bits = float(torch.cat([part.cpu() for part, _ in seen]).double().sum()) if seen else 0.0
        by_t = torch.tensor([[0.0] * min(BINS, self.p.q.T), *(part for _, part in seen)], dtype=torch.float64).sum(0)
        own = [bits, sum(len(part) for part, _ in seen), *by_t.tolist()]
        total, count, *terms = sum_over_processes(torch.tensor(own, dtype=torch.float64)).tolist()
        return Mean(total / count, [term / count for term in terms])
