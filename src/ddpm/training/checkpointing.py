"""A run can be stopped anywhere and goes on: whole checkpoints, the position in the data, signals, pending work."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ddpm.checkpoints import checkpoint, snapshots
from ddpm.data.module import DataModule
from ddpm.messages import typed
from ddpm.processes import StoppedError, is_rank_zero
from ddpm.training.module import DiffusionModule, is_whole_step
from ddpm.training.pictures import SamplePictures
from ddpm.training.validation import AfterValidation

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


KEPT = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "loops", "pending", "config", "data")


class CheckpointIO(TorchCheckpointIO):
    """Saves through `checkpoint.write`, and loads by handing over what was read and checked already.

    Lightning opens no file itself.

    Args:
        content: of the checkpoint from which a run goes on. It is emptied when it is handed over, to be freed.
    """

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.content = content or {}

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoint.write(checkpoint_, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        ours = {key: value for key, value in self.content.items() if key in KEPT or key.startswith("MixedPrecision")}
        self.content.clear()
        # What Lightning would do for a file of another of its versions, or hand to a callback, is not ours.
        return {**ours, "pytorch-lightning_version": L.__version__, "callbacks": {}, "epoch": 0}


class Checkpointing(Callback):
    """Writes checkpoints/last.ckpt every `every` steps and at the end; where a validation is due as well, after it.

    Attributes:
        step: of the newest checkpoint.
        pending: a signal forced it before the validation and the pictures of its step.
    """

    def __init__(self, folder: Path, every: int, validation_every: int) -> None:
        self.file, self.every, self.validation_every = folder / checkpoint.LAST, every, validation_every
        self.step, self.pending = -1, False

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        validation_follows = trainer.global_step % self.validation_every == 0
        if trainer.global_step % self.every == 0 and not validation_follows:
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.save(trainer)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.pending:  # there was nothing left to train, and `PendingWork` has made up for it
            self.save(trainer)

    def save(self, trainer: L.Trainer, pending: bool = False) -> None:
        """Write a checkpoint of this step unless it is there, or the step is not complete."""
        module = trainer.lightning_module
        assert isinstance(module, DiffusionModule)
        if (trainer.global_step, pending) == (self.step, self.pending) or not is_whole_step(trainer):
            return
        module.require_finite_now()
        self.step, self.pending = trainer.global_step, pending
        trainer.save_checkpoint(self.file)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, content: dict[str, Any]) -> None:
        content["pending"] = self.pending

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, content: dict[str, Any]) -> None:
        self.step, self.pending = content["global_step"], bool(content.get("pending"))
        # Lightning's own record depends on the hook that saved it and on the number of micro-batches.
        content["loops"] = {"fit_loop": _position(self.step, trainer.accumulate_grad_batches)}


class Snapshots(Callback):
    """Writes snapshots of the power-function averages into the run's folder, if the run keeps such averages.

    This callback must come before `Signals`: a run that is stopped after a step does not come back to it.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, DiffusionModule)
        if not is_whole_step(trainer) or not len(module.power_averages):
            return
        if snapshots.is_due(step := trainer.global_step):
            module.require_finite_now()  # on all ranks
            if trainer.is_global_zero:
                snapshots.write(self.run, step, dict(module.power_averages.named_parameters()))


class PendingWork(Callback):
    """Draws the pictures and validates before training goes on from a checkpoint whose step has had neither."""

    def __init__(
        self, checkpointing: Checkpointing, pictures: SamplePictures, after_validation: Sequence[AfterValidation]
    ) -> None:
        self.checkpointing, self.pictures, self.after_validation = checkpointing, pictures, after_validation

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self.checkpointing.pending:
            return
        data, step = getattr(trainer, "datamodule", None), self.checkpointing.step
        assert isinstance(module, DiffusionModule)
        assert isinstance(data, DataModule)
        self.pictures.draw(trainer, module, step)
        if step % self.checkpointing.validation_every == 0:
            module.validate(data.val_dataloader(), step)
            for each in self.after_validation:
                each.after_validation(trainer, module, step)
            self.pictures.draw_last(trainer, module, step)


class Signals(Callback):
    """SIGTERM, SIGUSR1 and Ctrl-C save and end the run, on all ranks together; a second Ctrl-C ends it at once.

    This callback must come before those that take time at the end of a step.
    """

    def __init__(self, checkpointing: Checkpointing) -> None:
        self.checkpointing, self.received, self._process = checkpointing, 0, os.getpid()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for signum in SIGNALS:  # after Lightning's own, whose handler waits for the other ranks wherever it is called
            signal.signal(signum, self._note)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if is_whole_step(trainer):
            self.check(trainer)

    def on_validation_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        self.check(trainer)  # all ranks have as many batches

    def check(self, trainer: L.Trainer) -> None:
        """Save and end the run if any rank was told to; called where the weights are those of a whole step.

        Raises:
            StoppedError: one was.
        """
        if trainer.strategy.reduce_boolean_decision(self.received != 0, all=False):
            self.checkpointing.save(trainer, pending=True)
            raise StoppedError(
                self.received or signal.SIGTERM,
                f"stopped and saved at step {trainer.global_step}; "
                f"it goes on with: {typed('train', f'resume={trainer.default_root_dir}')}",
            )

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker that reads data: the training process will end it
        again, self.received = self.received, signum  # before what is printed: the next may come while it is
        if signum == signal.SIGINT:
            if again:
                raise KeyboardInterrupt
            if is_rank_zero():
                print("saving; Ctrl-C again stops at once, without", file=sys.stderr, flush=True)


def _position(step: int, accumulate: int) -> dict[str, Any]:
    """The state of Lightning's loops between two optimizer steps of the one long epoch that a run is."""

    def counted(n: int, *names: str) -> dict[str, dict[str, int]]:
        return {scope: dict.fromkeys(names, n) for scope in ("total", "current")}

    stages = ("ready", "started", "processed", "completed")
    begun = {scope: {"ready": 1, "started": 1, "processed": 0, "completed": 0} for scope in ("total", "current")}
    return {
        "epoch_progress": begun,
        "epoch_loop.batch_progress": {**counted(step * accumulate, *stages), "is_last_batch": False},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": counted(step, "ready", "completed"),
                "zero_grad": counted(step, "ready", "started", "completed"),
            }
        },
    }
