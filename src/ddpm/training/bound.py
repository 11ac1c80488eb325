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


class MeanBound(NamedTuple):
    """The bound and its terms by bins of t (`loggers.by_t`), in bits/dim, as means over all examples."""

    bits_per_dim: float
    by_t: list[float]


class EstimatedBound:
    """Accumulates unbiased estimates of the bound; chunk k has the same noise whichever process it comes to.

    Args:
        p: the process with averaged weights.
    """

    def __init__(self, p: ReverseProcess, seed: int) -> None:
        self.p, self.seed, self.steps = p, seed, min(TIMESTEPS, p.q.T)
        self._estimates: list[tuple[Tensor, list[float]]] = []  # bits/dim of each image; the terms' sum, by t

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
        self._estimates.append((found.nats / scale, by_t))

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

    def compute(self, sum_over_processes: Callable[[Tensor], Tensor]) -> MeanBound:
        """The mean over the examples of all processes, each of which must ask; then there are none."""
        estimates, self._estimates = self._estimates, []
        bits = float(torch.cat([part.cpu() for part, _ in estimates]).double().sum()) if estimates else 0.0
        nothing = [0.0] * min(BINS, self.p.q.T)
        by_t = torch.tensor([nothing, *(part for _, part in estimates)], dtype=torch.float64).sum(0)
        own = [bits, sum(len(part) for part, _ in estimates), *by_t.tolist()]
        total, count, *terms = sum_over_processes(torch.tensor(own, dtype=torch.float64)).tolist()
        return MeanBound(total / count, [term / count for term in terms])
