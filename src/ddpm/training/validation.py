"""The base class of callbacks that act on a finished validation."""

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ddpm.training.module import DiffusionModule


class AfterValidation(Callback, ABC):
    """A callback that acts on what a validation has found; `PendingWork` calls it where a signal came before that."""

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, DiffusionModule)
        self.after_validation(trainer, module, trainer.global_step)

    @abstractmethod
    def after_validation(self, trainer: L.Trainer, module: DiffusionModule, step: int) -> None:
        """Act on `module.validated`, which holds the metrics of this step's validation so far."""
