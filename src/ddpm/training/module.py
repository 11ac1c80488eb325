"""The LightningModule: training and validation steps, optimizer and EMA. The mathematics is in diffusion/."""

import copy
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm.data.conditioning import ConditionedBatch
from ddpm.data.module import DataModule
from ddpm.data.order import part_of
from ddpm.data.pixels import flip, unit
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.timesteps import Timesteps
from ddpm.diffusion.wide import wide
from ddpm.loggers.loggers import log_by_t
from ddpm.randomness import generator, seed_dropout
from ddpm.training.averages import PowerFunctionAverages
from ddpm.training.bound import EstimatedBound
from ddpm.training.divergence import Step, raise_diverged
from ddpm.training.monitor import held_out_bound_name
from ddpm.training.optimizer import OptimizerSettings


class LocalStep(NamedTuple):
    """This process's share of an optimizer step: of each part of `Step.parts`, a tensor for every micro-batch."""

    number: int
    gradient_norm: Tensor
    parts: dict[str, list[Tensor]]


def buffers_of(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """What a network has in its state_dict beside its weights, such as running statistics: layers, and names in them.

    The tensors themselves change with the device, and with every assignment.
    """
    saved = network.state_dict().keys()
    names = [name.rpartition(".") for name, _ in network.named_buffers() if name in saved]
    return [(network.get_submodule(layer), name) for layer, _, name in names]


def is_whole_step(trainer: L.Trainer) -> bool:
    """Whether the weights are those of a whole optimizer step, after a batch of which micro-batches may be left."""
    return not trainer.fit_loop._should_accumulate()  # Lightning has no public way to ask


class DiffusionModule(L.LightningModule):
    """Trains `p.network` and keeps `p_ema`, the same process with exponentially averaged weights.

    Every random draw of a step is a function of (seed, step): t, noise, and whose condition is dropped are drawn for
    the global batch and cut by micro-batch and rank, so that the numbers of micro-batches and ranks change nothing but
    dropout and the order of float additions.

    Args:
        lengths: of the power-function averages that are kept besides; `ddpm.training.averages`.
        batch_size: of the global batch, of which a training step sees the part that is `data.order.part_of`'s.
    """

    def __init__(
        self,
        p: ReverseProcess,
        objective: Objective,
        timesteps: Timesteps,
        optimizer: OptimizerSettings,
        *,
        ema_decay: float,
        lengths: Sequence[float] = (),
        batch_size: int,
        seed: int,
        horizontal_flip: bool,
        drop: float = 0.0,
        log_every: int,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.p, self.objective, self.timesteps = p, objective, timesteps
        self.p_ema = p.over(copy.deepcopy(p.network).requires_grad_(False).eval())
        self._average = get_ema_multi_avg_fn(ema_decay)  # type: ignore[no-untyped-call]
        self.power_averages = PowerFunctionAverages(p.network, lengths)
        # Lists: a walk through all modules takes a small network a good part of its step.
        self._weights, self._averages = list(p.parameters()), list(self.p_ema.parameters())
        copies = (self.p_ema.network, *self.power_averages)
        self._buffers_of_averages = [(buffers_of(each), buffers_of(p.network)) for each in copies]
        self.optimizer_settings, self.batch_size = optimizer, batch_size
        self.seed, self.horizontal_flip, self.drop = seed, horizontal_flip, drop
        self.log_every, self.config = log_every, config
        self.latest: dict[str, float] = {}  # what was logged last, for the progress bar
        self.batch_ended = 0.0  # when the callbacks were done with the last one
        self._micro_batches: list[dict[str, Tensor]] = []  # of this step's micro-batches: as in `Step.parts`
        self._unchecked: LocalStep | None = None
        self.held_out = EstimatedBound(self.p_ema, seed)
        self.validated: dict[str, float] = {}  # what the newest validation has found

    def train(self, mode: bool = True) -> "DiffusionModule":
        super().train(mode)
        self.p_ema.eval()  # the averaged network is only ever evaluated
        return self

    # --- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Give the moments of a checkpoint's optimizer the memory layout of the weights, on which fused Adam relies."""
        for weights, moments in self.trainer.optimizers[0].state.items():
            for name, moment in moments.items():
                if moment.shape == weights.shape:
                    moments[name] = torch.empty_like(weights).copy_(moment)

    def training_step(self, batch: ConditionedBatch, batch_idx: int) -> Tensor:
        values, condition = batch
        micro, whole = batch_idx % self.trainer.accumulate_grad_batches, self.batch_size
        parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        part = micro * self.trainer.world_size + self.global_rank
        mine = part_of(whole, parts, part)

        draw = generator(self.device, self.seed, self.global_step)
        t, weight = self.timesteps.sample(whole, draw)
        noise = torch.randn((whole, *values.shape[1:]), generator=draw, device=self.device)
        x_0 = unit(values)
        if self.horizontal_flip:
            mirrored = torch.rand(whole, generator=draw, device=self.device)[mine] < 0.5
            x_0 = flip(x_0, mirrored)
            if condition and condition.image is not None:
                condition = replace(condition, image=flip(condition.image, mirrored))
        if condition and self.drop:
            condition = condition.dropped(torch.rand(whole, generator=draw, device=self.device)[mine] < self.drop)
        seed_dropout(self.device, self.seed, self.global_step, part + 1)  # + 1: not the stream of t and noise

        losses = self.objective(self.p.given(condition), x_0, t[mine], noise[mine])
        told = condition.parts if condition else {}
        self._micro_batches.append({"batch": values, "t": t[mine], "loss": losses.detach(), **told})
        # The parts may differ in size: the mean over them, which accumulation and DDP take, is that of the whole batch.
        return (weight[mine] * losses).sum() / (whole / parts)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        if scaler := self._scaler:
            scaler.unscale_(optimizer)  # in 16-mixed a fused optimizer's gradients are unscaled in its step: too late
        norm = nn.utils.clip_grad_norm_(self._weights, self.optimizer_settings.grad_clip)
        micro_batches, self._micro_batches = self._micro_batches, []
        parts = {name: [micro[name] for micro in micro_batches] for name in micro_batches[0]}
        self._require_finite_soon(LocalStep(self.global_step + 1, norm, parts))
        logged = (self.global_step + 1) % self.log_every == 0
        if self.timesteps.adaptive or logged:
            t, loss = self._gathered(parts["t"]), self._gathered(parts["loss"])
            if self.timesteps.adaptive:
                self.timesteps.update(t, loss)
            if logged:
                self._log_step(norm, t, loss)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self._average(self._averages, self._weights, None)
        self.power_averages.update(self._weights, self.global_step + 1)
        for kept, buffers in self._buffers_of_averages:  # running statistics are averages themselves
            for (average, name), (layer, _) in zip(kept, buffers, strict=True):
                average.get_buffer(name).copy_(layer.get_buffer(name))

    def on_train_batch_end(self, *_: Any) -> None:
        self.batch_ended = time.perf_counter()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.optimizer_settings
        optimizer = settings.optimizer(self.p)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: settings.factor(step, self.trainer.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss in 16-mixed, and in no other precision."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _require_finite_soon(self, step: LocalStep) -> None:
        """Raise where the step's numbers are not finite; on a GPU one step later, so that the CPU need not wait."""
        if self.device.type != "cpu":
            self.require_finite_now()
            self._unchecked = step
        else:
            self._require_finite(step)

    def require_finite_now(self) -> None:
        """Raise if the last step's numbers were not finite; this waits for the device, before weights are saved."""
        step, self._unchecked = self._unchecked, None
        if step is not None:
            self._require_finite(step)

    def _require_finite(self, step: LocalStep) -> None:
        if self._scaler is None:
            finite = math.isfinite(float(step.gradient_norm))  # the same on all ranks; a loss that is not makes it so
        else:
            finite = bool(self._gathered(step.parts["loss"]).isfinite().all())  # 16-mixed tries out infinite gradients
        if not finite:
            whole = {name: self._gathered(parts) for name, parts in step.parts.items()}
            raise_diverged(Step(step.number, step.gradient_norm, whole), Path(self.trainer.default_root_dir))

    def _log_step(self, gradient_norm: Tensor, t: Tensor, loss: Tensor) -> None:
        """Log losses, gradient norm and learning rate of the step that is about to be taken."""
        quarter = (t - 1) * 4 // self.p.q.T
        metrics = {"train/loss": float(loss.mean())}
        for k in range(4):
            if (inside := loss[quarter == k]).numel():
                metrics[f"train/loss_quarter_{k + 1}"] = float(inside.mean())
        metrics["train/gradient_norm"] = float(gradient_norm)
        metrics["train/learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_now(metrics, self.global_step + 1)

    def log_now(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send metrics to every logger under the number of optimizer steps taken."""
        self.latest |= metrics
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, self.global_step if step is None else step)

    def _gathered(self, mine: Sequence[Tensor]) -> Tensor:
        """The values of the whole global batch in its order, given those of this rank's micro-batches."""
        ranks, count = self.trainer.world_size, self.trainer.world_size * len(mine)
        if ranks == 1:
            return torch.cat([*mine])
        sizes = [len(range(self.batch_size)[part_of(self.batch_size, count, k)]) for k in range(count)]
        padded = mine[0].new_zeros(len(mine), max(sizes), *mine[0].shape[1:])  # all_gather takes equal shapes
        for row, values in zip(padded, mine, strict=True):
            row[: len(values)] = values
        gathered = [torch.empty_like(padded) for _ in range(ranks)]
        torch.distributed.all_gather(gathered, padded)
        return torch.cat([gathered[k % ranks][k // ranks, :size] for k, size in enumerate(sizes)])

    # --- validation --------------------------------------------------------------------------------------------------

    def validation_step(self, batch: tuple[int, ConditionedBatch], batch_idx: int) -> None:
        self.held_out.update(*batch)

    def on_validation_epoch_end(self) -> None:
        self._log_validation(self.global_step)

    def validate(self, batches: Iterable[tuple[int, ConditionedBatch]], step: int) -> None:
        """Validate outside of the Trainer's loop, for a step whose validation a signal prevented."""
        self.held_out.over(batches, self.trainer)
        self._log_validation(step)

    def _log_validation(self, step: int) -> None:
        found = self.held_out.compute(self.sum_over_processes)
        self.validated = {}
        self.log_validated({held_out_bound_name(self.p.q.T): found.bits_per_dim}, step)
        log_by_t(self.trainer.loggers, "validation/terms_by_t", found.by_t, self.p.q.T, step)

    def log_validated(self, metrics: dict[str, float], step: int) -> None:
        """Log metrics of the newest validation, "validation/NAME"."""
        self.validated |= metrics
        self.log_now(metrics, step)

    def sum_over_processes(self, own: Tensor) -> Tensor:
        """The sum of what each process has, on all of them."""
        total: Tensor = self.trainer.strategy.reduce(wide(own, self.device), reduce_op="sum")
        return total

    # --- checkpoint --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
        if isinstance(data := getattr(self.trainer, "datamodule", None), DataModule):
            checkpoint["data"] = data.dataset.fingerprint
