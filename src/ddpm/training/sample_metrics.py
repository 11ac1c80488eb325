"""Metrics of a few samples of the averaged weights while the run trains."""

from collections.abc import Callable

import lightning as L
import torch

from ddpm.evaluation.evaluation import Evaluation
from ddpm.launch import rank_of
from ddpm.training.module import DiffusionModule
from ddpm.training.monitor import samples_name
from ddpm.training.validation import AfterValidation


class SampleMetrics(AfterValidation):
    """Logs metrics of samples every `every` steps, with a validation: the same samples' noise every time.

    Args:
        evaluation: what is measured; the numbers are those of `ddpm evaluate` with as many samples.
        between: called before each chunk of samples; it may end the run by raising.
    """

    def __init__(self, evaluation: Evaluation, every: int, between: Callable[[L.Trainer], None]) -> None:
        self.evaluation, self.every, self.between = evaluation, every, between

    @torch.no_grad()
    def after_validation(self, trainer: L.Trainer, module: DiffusionModule, step: int) -> None:
        if step % self.every:
            return
        found = self.evaluation.measure_samples(module.p_ema, rank_of(trainer), lambda: self.between(trainer))
        module.log_validated({samples_name(name, entry["n"]): entry["value"] for name, entry in found.items()}, step)
