"""The LightningModule: training and validation steps, optimizer, EMA. No mathematics of its own."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm.data.pixels import flip, unit
from ddpm.diffusion.budget import estimate_bound
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.timesteps import Timesteps
from ddpm.randomness import generator, seed_of
from ddpm.runs import RunFailedError

VALIDATION_TIMESTEPS = 16


class DivergedError(RunFailedError):
    """A gradient is no longer finite."""


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam with linear warm-up from 0 and a bound on the gradient's global norm; Ho et al. 2020, appendix B.

    `anneal` takes the learning rate linearly to 0 at the last step (Nichol & Dhariwal 2021); the original keeps it.
    """

    lr: float
    warmup: int
    grad_clip: float
    anneal: bool = False

    def factor(self, step: int, max_steps: int) -> float:
        """Of the learning rate, `step` updates after the start: the original's first update has learning rate 0."""
        warm = min(step / self.warmup, 1.0) if self.warmup else 1.0
        return warm * (1 - step / max_steps if self.anneal else 1.0)


class DiffusionModule(L.LightningModule):
    """Trains `p.network` and keeps `p_ema`, the same process with exponentially averaged weights.

    Every random draw of a step is a function of (seed, step, micro-batch): t and noise are drawn for the global batch
    and cut by rank, so that the number of processes changes nothing but the order of float additions.
    """

    def __init__(
        self,
        p: ReverseProcess,
        objective: Objective,
        timesteps: Timesteps,
        optimizer: OptimizerSettings,
        *,
        ema_decay: float,
        seed: int,
        horizontal_flip: bool,
        log_every: int,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.p, self.objective, self.timesteps = p, objective, timesteps
        ema_network = copy.deepcopy(p.network).requires_grad_(False).eval()
        self.p_ema = ReverseProcess(ema_network, p.q, p.prediction, p.variance)
        self._average = get_ema_multi_avg_fn(ema_decay)  # type: ignore[no-untyped-call]
        self.optimizer_settings, self.seed, self.horizontal_flip = optimizer, seed, horizontal_flip
        self.log_every, self.config = log_every, config
        self.latest: dict[str, float] = {}  # what was logged last, for the progress bar
        self._seen: list[tuple[Tensor, Tensor]] = []  # (t, loss) of this step's micro-batches
        self._validation: list[Tensor] = []

    def train(self, mode: bool = True) -> "DiffusionModule":
        super().train(mode)
        self.p_ema.eval()  # the averaged network is only ever evaluated
        return self

    # --- training ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        micro = batch_idx % self.trainer.accumulate_grad_batches
        key = (self.seed, self.global_step, micro)
        draw = generator(self.device, *key)
        n, rank = len(batch), self.global_rank
        mine, whole = slice(rank * n, (rank + 1) * n), n * self.trainer.world_size

        t, weight = self.timesteps.sample(whole, draw)
        noise = torch.randn((whole, *batch.shape[1:]), generator=draw, device=self.device)
        x_0 = unit(batch)
        if self.horizontal_flip:
            x_0 = flip(x_0, torch.rand(whole, generator=draw, device=self.device)[mine] < 0.5)
        torch.manual_seed(seed_of(*key, rank))  # dropout

        losses = self.objective(self.p, x_0, t[mine], noise[mine])
        self._seen.append((t[mine], losses.detach()))
        if self.timesteps.adaptive:
            self.timesteps.update(*(self._gathered(seen) for seen in self._seen[-1]))
        return (weight[mine] * losses).mean()

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        norm = torch.nn.utils.clip_grad_norm_(self.p.parameters(), self.optimizer_settings.grad_clip)
        self._log_step(norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self._average(list(self.p_ema.network.parameters()), list(self.p.network.parameters()), None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.optimizer_settings
        optimizer = torch.optim.Adam(self.p.parameters(), settings.lr, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: settings.factor(step, self.trainer.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _log_step(self, gradient_norm: Tensor) -> None:
        """Losses and the gradient's norm of the step that is about to be taken; called once per optimizer step."""
        seen, self._seen = self._seen, []
        step = self.global_step + 1
        due = step % self.log_every == 0
        if not (due or self.device.type == "cpu"):
            return  # reading a number would make the CPU wait for the device
        if not math.isfinite(norm := float(gradient_norm)):
            raise DivergedError(
                f"the gradient is not finite (norm {norm}) at step {step}: "
                "try a smaller optimizer.lr, a smaller optimizer.grad_clip or a longer optimizer.warmup"
            )
        if not due:
            return
        t, loss = self._gathered(torch.cat([t for t, _ in seen])), self._gathered(torch.cat([x for _, x in seen]))
        quarter = (t - 1) * 4 // self.p.q.T
        metrics = {"train/loss": float(loss.mean())}
        for k in range(4):
            if (inside := loss[quarter == k]).numel():
                metrics[f"train/loss_quarter_{k + 1}"] = float(inside.mean())
        metrics["train/gradient_norm"] = norm
        metrics["train/learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_now(metrics, step)

    def log_now(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send metrics to every logger under the number of optimizer steps taken."""
        self.latest |= metrics
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, self.global_step if step is None else step)

    def _gathered(self, values: Tensor) -> Tensor:
        """The values of all ranks, in rank order."""
        if self.trainer.world_size == 1:
            return values
        gathered = self.all_gather(values)
        assert isinstance(gathered, Tensor)
        return gathered.flatten(0, 1)

    # --- validation --------------------------------------------------------------------------------------------------

    def validation_step(self, batch: tuple[int, Tensor], batch_idx: int) -> None:
        chunk, images = batch
        x_0 = unit(images)
        draw = generator(self.device, self.seed, chunk)
        steps = min(VALIDATION_TIMESTEPS, self.p.q.T)
        nats = estimate_bound(self.p_ema, x_0, draw, num_timesteps=steps)
        self._validation.append(nats / (x_0[0].numel() * math.log(2)))

    def on_validation_epoch_end(self) -> None:
        bits = torch.cat(self._validation) if self._validation else torch.zeros(0, device=self.device)
        self._validation = []
        sums = torch.stack([bits.double().sum(), torch.tensor(len(bits), dtype=torch.float64, device=self.device)])
        total, count = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        steps = min(VALIDATION_TIMESTEPS, self.p.q.T)
        self.log_now({f"validation/bits_per_dim_{steps}_timesteps": total / count})

    # --- checkpoint --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config


def fit(trainer: L.Trainer, module: DiffusionModule, data: L.LightningDataModule) -> None:
    """Train to the end.

    Raises:
        KeyboardInterrupt: Ctrl-C, which Lightning would turn into exit code 1.
        DivergedError: a gradient is no longer finite.
    """
    try:
        trainer.fit(module, data)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
