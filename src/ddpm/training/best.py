"""The best checkpoint beside the last, and the end of a run that no longer improves."""

from pathlib import Path
from typing import Any

import lightning as L

from ddpm.config.which import BEST
from ddpm.files import name_again
from ddpm.messages import say
from ddpm.training.checkpointing import Checkpointing
from ddpm.training.module import DiffusionModule
from ddpm.training.monitor import Monitor
from ddpm.training.validation import AfterValidation


class Best(AfterValidation):
    """Keeps the checkpoint of the best validation as best.ckpt, and ends the run after `patience` without a better one.

    best.ckpt is another name of the last.ckpt that is written at that step, so that both say the same of the best.
    Lightning's ModelCheckpoint and EarlyStopping keep a state that depends on when they were called; the monitor's
    depends on the measured values alone, so that a resumed run ends as an undisturbed one.

    Args:
        monitor: of a metric of validations; where the run goes on, it has seen those before.
    """

    def __init__(self, checkpointing: Checkpointing, monitor: Monitor, patience: int | None) -> None:
        self.checkpointing, self.monitor, self.patience = checkpointing, monitor, patience
        self._due = False  # the best is not yet kept

    def after_validation(self, trainer: L.Trainer, module: DiffusionModule, step: int) -> None:
        value = module.validated.get(self.monitor.metric)
        if value is None:  # it is not measured at every validation
            return
        self._due |= self.monitor.see(step, value)
        if self.patience is not None and self.monitor.at_end(self.patience):
            trainer.should_stop = True
            say(self.monitor.why(self.patience))

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        super().on_validation_end(trainer, module)
        self._keep(trainer)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._keep(trainer)  # what `PendingWork` has found

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._keep(trainer)  # the same, where there was nothing left to train

    def _keep(self, trainer: L.Trainer) -> None:
        if self._due:
            self.checkpointing.save(trainer)
            self._name(trainer, self.checkpointing.file)
            self._due = False

    def _name(self, trainer: L.Trainer, file: Path) -> None:
        if trainer.is_global_zero:
            name_again(file, file.with_name(BEST))

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, content: dict[str, Any]) -> None:
        content["monitor"] = self.monitor.state

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, content: dict[str, Any]) -> None:
        if self.monitor.best_step == content["global_step"] and not content.get("pending"):
            self._name(trainer, Path(str(trainer.ckpt_path)))  # the run was killed before it could
