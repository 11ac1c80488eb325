"""Callbacks that watch the training; one class per job."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar

from ddpm.data.conditioning import ConditionedBatch
from ddpm.data.module import DataModule
from ddpm.messages import warn
from ddpm.progress import Bar
from ddpm.training.module import DiffusionModule, is_whole_step
from ddpm.training.monitor import TOLERABLE_WAIT


class TrainingBar(ProgressBar):
    """Shows steps, loss, images/s and time left, in one bar over all steps: epochs mean little to a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._bar = Bar("training", trainer.max_steps, enabled=trainer.is_global_zero, start=trainer.global_step)
        self._bar.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert self._bar is not None
        assert isinstance(module, DiffusionModule)
        if (steps := trainer.global_step - self._bar.done) > 0:
            latest = module.latest
            shown = [f"loss {latest['train/loss']:.4f}"] if "train/loss" in latest else []
            shown += (
                [f"{latest['train/images_per_second']:.0f} images/s"] if "train/images_per_second" in latest else []
            )
            self._bar.advance(steps, "  ".join(shown))

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def disable(self) -> None:
        """Nothing: Lightning calls this on ranks above 0, and the bar asks the trainer itself."""

    def enable(self) -> None: ...


class Throughput(Callback):
    """Logs images/s of the training steps alone, and the share of their time that is spent waiting for data.

    It must be the first callback: what others do at the end of a batch is neither part of the step nor waiting, which
    begins when they have done (`module.batch_ended`).
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._images, self._busy, self._waited = 0.0, 0.0, 0.0
        self._then: float | None = None  # the start of this batch; None where something else came before the next
        self._advised = False

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, DiffusionModule)
        now = time.perf_counter()
        self._waited += 0.0 if self._then is None else now - module.batch_ended
        self._then = now

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: ConditionedBatch, batch_idx: int
    ) -> None:
        assert isinstance(module, DiffusionModule)
        assert self._then is not None
        self._busy += time.perf_counter() - self._then
        self._images += module.batch_size / trainer.accumulate_grad_batches
        if trainer.global_step % self.every == 0 and is_whole_step(trainer):
            total = self._busy + self._waited
            share = self._waited / total
            module.log_now({"train/images_per_second": self._images / total, "train/data_wait": share})
            self._advise(trainer, share)
            self._images, self._busy, self._waited = 0.0, 0.0, 0.0

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._then = None

    def _advise(self, trainer: L.Trainer, share: float) -> None:
        data = getattr(trainer, "datamodule", None)
        warm = trainer.global_step > self.every  # the first batches start the workers
        if share > TOLERABLE_WAIT and warm and not self._advised and isinstance(data, DataModule):
            self._advised = True
            warn(f"{share:.0%} of the training time is waiting for data: {data.advice}")
