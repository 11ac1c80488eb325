"""What a run needs to be trained, and whether it can be."""

import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from ddpm.build.data import conditioning
from ddpm.build.model import fitting_weights, lay_out, reverse_process, speed_up
from ddpm.checkpoints.checkpoint import Checkpoint, check_weights, misfit
from ddpm.config.saved import plain
from ddpm.data.dataset import Dataset
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.timesteps import Timesteps
from ddpm.instantiate import instantiate
from ddpm.training import resumable
from ddpm.training.module import DiffusionModule
from ddpm.training.optimizer import OptimizerSettings


def module(config: DictConfig, dataset: Dataset, start: Checkpoint | None = None) -> DiffusionModule:
    """The LightningModule of a configuration; its network and their average begin with `start`'s weights, if given.

    Raises:
        ValueError: the weights of `start` are not those of a network for these data, or no checkpoint can hold the
            network's buffers.
    """
    data = f"data of shape {'x'.join(map(str, dataset.shape))}"
    hint = "for images of another size, network.attention_resolutions= says where it has attention"
    weights = fitting_weights(start, config, dataset, f"does not fit {data} ({hint})") if start else None
    p = reverse_process(config, dataset)
    try:
        check_weights(p.network.state_dict())
    except ValueError as error:
        hint = "a buffer that the network computes itself can have persistent=False"
        raise ValueError(f"the network cannot be saved: {error}; {hint}") from None
    if weights:
        p.network.load_state_dict(weights)
    built = DiffusionModule(
        p,
        instantiate(config.objective, Objective),
        instantiate(config.timesteps, Timesteps),
        OptimizerSettings(**config.optimizer),
        ema_decay=config.ema.decay,
        lengths=config.ema.lengths,
        batch_size=config.loader.batch_size,
        seed=config.seed,
        horizontal_flip=dataset.horizontal_flip,
        drop=conditioning(config).drop,
        log_every=config.every.log,
        config=plain(config),
    )
    for each in (built.p.network, built.p_ema.network):
        speed_up(each, config.trainer)
    lay_out(built.power_averages, config.trainer)
    return built


def check_shares(network: torch.nn.Module, parts: int) -> None:
    """Check that a batch may be cut into so many parts, by processes and micro-batches, without other results.

    Raises:
        ValueError: the network normalises by statistics of a part.
    """
    of_batches = [f"{name}, a {type(layer).__name__}" for name, layer in network.named_modules() if _of_batch(layer)]
    if parts > 1 and of_batches:
        raise ValueError(
            f"the network takes statistics of a batch ({of_batches[0]}), which would be others in {parts} parts: "
            "train it on one device with trainer.accumulate=1, or let it use GroupNorm"
        )


def _of_batch(layer: torch.nn.Module) -> bool:
    kept = getattr(layer, "track_running_stats", False)  # InstanceNorm's, too, if it is asked for
    return kept is True or isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)


def check_resumed(saved: Checkpoint, module: DiffusionModule, dataset: Dataset) -> None:
    """Check that a run can go on with this model and these dataset.

    Raises:
        ValueError: it cannot.
    """
    if problem := misfit(saved.weights, module.p_ema.network.state_dict()):
        raise ValueError(f"{saved.path} does not hold the weights of its configuration: {problem}")
    if saved.content is None:
        raise ValueError(f"training cannot go on from {saved.path}, which holds weights alone: begin with init=")
    try:
        resumable.check_training(saved.content, module)
    except ValueError as error:
        raise ValueError(f"training cannot go on from {saved.path}: {error}") from None
    if saved.data != dataset.fingerprint:
        raise ValueError(
            f"the run was trained on other images ({saved.data}) than there are now ({dataset.fingerprint})"
        )


def callbacks(config: DictConfig) -> list[Callback]:
    """A user's own callbacks of Lightning's Trainer.

    Raises:
        ValueError: one of them is no callback, or has no such setting.
    """
    return [instantiate(each, Callback) for each in (config.get("callbacks") or {}).values()]


def summary(trained: DiffusionModule, config: DictConfig) -> str:
    """One line on what is about to be trained."""
    axes = ("prediction", "variance", "objective", "schedule")
    parameters = sum(weights.numel() for weights in trained.p.network.parameters())
    chosen = ", ".join(str(config.choices[axis]) for axis in axes)
    steps = f"{config.max_steps:,} steps of {config.loader.batch_size}"
    return f"{config.name}: {parameters:,} parameters; {chosen}; {steps}; {config.trainer.precision}"
