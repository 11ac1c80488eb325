"""The Lightning Trainer of a run, with everything that happens beside the training step."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.config.saved import plain
from ddpm.data.module import DataModule
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation.evaluation import Evaluation
from ddpm.figures.display import display_of
from ddpm.launch import placement, quieten
from ddpm.loggers import loggers
from ddpm.processes import end_with_launcher
from ddpm.training import callbacks, checkpointing
from ddpm.training.best import Best
from ddpm.training.memorisation import Memorisation
from ddpm.training.monitor import Monitor
from ddpm.training.pictures import Pictures
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
    pictures = Pictures(
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
            callbacks.Throughput(every.log),
            callbacks.TrainingBar(),
            checkpointing.Snapshots(folder),
            signals,
            pictures,
            *after_validation,
            saving,
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
