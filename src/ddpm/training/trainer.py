"""The Lightning Trainer of a run, with everything that happens beside the training step; and its way to the end."""

import signal
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.config.saved import plain
from ddpm.data.dataset import DataError
from ddpm.data.module import DataModule
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation.evaluation import Evaluation
from ddpm.figures.display import display_of
from ddpm.launch import placement, quieten, sharing
from ddpm.loggers import loggers
from ddpm.messages import typed
from ddpm.processes import RunFailedError, end_with_launcher, is_rank_zero
from ddpm.randomness import seed_dropout
from ddpm.training import callbacks, checkpointing
from ddpm.training.best import Best
from ddpm.training.memorisation import Memorisation
from ddpm.training.module import DiffusionModule
from ddpm.training.monitor import Monitor
from ddpm.training.pictures import SamplePictures
from ddpm.training.sample_metrics import SampleMetrics


def trainer_of(
    config: DictConfig,
    folder: Path,
    data: DataModule,
    drawn_by: Sampler,
    guidance: Guidance,
    monitor: Monitor,
    sample_metrics: Evaluation | None = None,
    saved: Checkpoint | None = None,
    more: Sequence[Callback] = (),
) -> L.Trainer:
    """Make the Trainer of a run in `folder`.

    Args:
        drawn_by: the sampler that draws the pictures during training.
        guidance: of these pictures' samples.
        monitor: of validations: by it the best checkpoint is chosen, and the run may end.
        sample_metrics: what of a few samples is measured every `every.metrics` steps.
        saved: the checkpoint from which the run goes on, if it does.
        more: a user's callbacks, beside those of every run.
    """
    quieten()
    end_with_launcher()
    every, settings = config.every, config.trainer
    where = placement(settings)
    if where["strategy"] == "ddp":
        # Buffers are the same on every rank by construction.
        where["strategy"] = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    saving = checkpointing.Checkpointing(folder / "checkpoints", every.checkpoint, every.validation)
    signals = checkpointing.Signals(saving)
    display = display_of(data.dataset)
    pictures = SamplePictures(
        folder,
        drawn_by,
        data,
        display.during_training,
        every=every.samples,
        seed=config.evaluation.seed,
        sheet=display.sheet,
        guidance=guidance,
        between=signals.check,
    )
    after_validation = [
        Memorisation(signals.check),
        *([SampleMetrics(sample_metrics, every.metrics, signals.check)] if sample_metrics else []),
        Best(saving, monitor, config.stop.patience),
    ]
    return L.Trainer(
        **where,
        precision=settings.precision,
        max_steps=config.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        val_check_interval=every.validation * settings.accumulate,
        check_val_every_n_epoch=None,
        callbacks=[
            callbacks.Throughput(every.log),  # first, so that a step's time is that of the step alone
            callbacks.TrainingBar(),
            checkpointing.Snapshots(folder),  # before what may end the run: a step is not come back to
            signals,  # before what takes time after a step
            pictures,
            *after_validation,
            saving,  # after a validation, so that a checkpoint knows the best
            checkpointing.PendingWork(saving, pictures, after_validation),
            *more,
        ],
        plugins=[checkpointing.CheckpointIO(saved.content if saved else None)],
        logger=loggers.of_training(folder, plain(config), saved.step if saved else 0) or False,
        default_root_dir=folder,
        log_every_n_steps=every.log,
        num_sanity_val_steps=0,
        benchmark=True,  # cuDNN picks the fastest convolutions: sizes do not change
        use_distributed_sampler=False,  # the DataModule's samplers know the ranks
        enable_model_summary=False,
        enable_checkpointing=False,  # ours writes after a validation that is due at the same step
    )


def fit(trainer: L.Trainer, module: DiffusionModule, data: DataModule, start: Path | None = None) -> None:
    """Train to the end, from the checkpoint file `start` if there is one.

    Raises:
        KeyboardInterrupt: a second Ctrl-C, which Lightning would turn into exit code 1.
        StoppedError: a signal; the run is saved.
        RunFailedError: numbers that are not finite, a file that cannot be written or read, or a process that is gone.
    """
    seed_dropout(torch.device("cpu"), module.seed)  # and what a user's dataset or callbacks draw
    go_on = "what was saved is intact"
    if is_rank_zero():  # the others do not know what the folder is called
        go_on += f", and goes on with: {typed('train', f'resume={trainer.default_root_dir}')}"
    try:
        with sharing(go_on):
            trainer.fit(module, data, ckpt_path=start, weights_only=True)
    except RunFailedError:
        _end_waiting_ranks(trainer)
        raise
    except SystemExit as end:
        _end_waiting_ranks(trainer)
        if end.code == 1:
            raise KeyboardInterrupt from None
        raise
    except (BrokenPipeError, DataError) as error:
        _end_waiting_ranks(trainer)
        raise RunFailedError(f"{error}; {go_on}") from error


def _end_waiting_ranks(trainer: L.Trainer) -> None:
    """Kill the ranks that this process launched: they wait for it, deaf to anything milder."""
    if (launcher := trainer.strategy.launcher) is not None:
        launcher.kill(signal.SIGKILL)
