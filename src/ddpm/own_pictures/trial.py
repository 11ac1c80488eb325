"""What a training step of a network costs on this machine: a few steps, taken and timed."""

import math
import signal
import time
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from ddpm.data.conditioning import ConditionedBatch
from ddpm.hardware import peak_memory
from ddpm.launch import placement, quieten
from ddpm.metrics import codecs
from ddpm.own_pictures.settings import Cost
from ddpm.training.module import DiffusionModule

WARM = 2  # steps before the clock starts
FEWEST_STEPS, MOST_STEPS, SECONDS = 2, 50, 1.5  # steps that are timed: until so many seconds have passed
CODED = 20_000  # levels of the pictures that codecs are timed on: half a second


class Clock(Callback):
    """Notes when each step has ended, and stops the training when that is known well enough."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.computed: list[float] = []  # seconds of all threads of this process

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        _wait(module.device)
        self.ends.append(time.perf_counter())
        self.computed.append(time.process_time())
        timed = self.ends[WARM - 1 :]
        trainer.should_stop = len(timed) > FEWEST_STEPS and timed[-1] - timed[0] > SECONDS

    @property
    def seconds(self) -> float:
        """The mean time of a step."""
        timed = self.ends[WARM - 1 :]
        return (timed[-1] - timed[0]) / (len(timed) - 1)

    @property
    def running(self) -> float:
        """The share of the time that the threads of a CPU were running: those that wait for others of them run, too."""
        computed = self.computed[-1] - self.computed[WARM - 1]
        return computed / (self.ends[-1] - self.ends[WARM - 1]) / torch.get_num_threads()


def trial(module: DiffusionModule, batch: ConditionedBatch, config: DictConfig) -> Cost:
    """Train a module that is thrown away for a few steps, evaluate its network and code its pictures a few times.

    Args:
        batch: one batch of the size that is trained on; each step takes it anew.
    """
    quieten()
    clock = Clock()
    interrupt = signal.getsignal(signal.SIGINT)
    trainer = L.Trainer(
        **placement(config.trainer),
        precision=config.trainer.precision,
        max_steps=WARM + MOST_STEPS,
        max_epochs=-1,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader[ConditionedBatch]([batch] * (WARM + MOST_STEPS), batch_size=None, collate_fn=lambda each: each)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You defined a `validation_step`")  # nothing is validated
            trainer.fit(module, loader)
    except SystemExit:  # which Lightning makes of Ctrl-C
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt from None
    n = len(batch.values)
    device = trainer.strategy.root_device
    memory, running = peak_memory(device), clock.running if device.type == "cpu" else 1.0
    return Cost(clock.seconds / n, _evaluation(module.to(device), batch, device), memory, _coding(batch), running)


@torch.no_grad()
def _evaluation(module: DiffusionModule, batch: ConditionedBatch, device: torch.device) -> float:
    """Seconds of an evaluation of the averaged network for one picture; of two trials the first warms up."""
    n = len(batch.values)
    x_t = torch.zeros(n, *batch.values.shape[1:], device=device)
    t = torch.full((n,), module.p.q.T, device=device)
    p = module.p_ema.given(batch.condition)
    for _ in range(2):
        begun = time.perf_counter()
        p(x_t, t)
        _wait(device)
    return (time.perf_counter() - begun) / n


def _coding(batch: ConditionedBatch) -> float:
    """Seconds that picture codecs take for a picture; 0 for what they do not take."""
    _, *shape = batch.values.shape
    if not codecs.take(tuple(shape)):
        return 0.0
    some = batch.values[: max(1, min(len(batch.values), CODED // math.prod(shape)))].cpu()
    begun = time.perf_counter()
    codecs.rows(some)
    return (time.perf_counter() - begun) / len(some)


def _wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
