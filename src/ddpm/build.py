"""From a configuration to objects. The only place where networks, mathematics and data meet."""

import functools
import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from hydra.errors import InstantiationException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from ddpm import hardware
from ddpm.checkpoints import converters
from ddpm.checkpoints.checkpoint import Checkpoint, misfit
from ddpm.config.groups import CONF
from ddpm.data.dataset import Dataset
from ddpm.data.module import DataModule
from ddpm.diffusion.decoder import ContinuousDecoder, DiscretizedDecoder
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation import plane
from ddpm.evaluation.chunks import Place
from ddpm.evaluation.evaluation import Evaluation, Settings
from ddpm.figures.context import Scene
from ddpm.figures.gallery import Gallery
from ddpm.loggers import loggers
from ddpm.metrics import registry
from ddpm.metrics.features import FeatureExtractor
from ddpm.metrics.metric import SampleMetric
from ddpm.processes import end_with_launcher
from ddpm.randomness import seed_of
from ddpm.training import callbacks, checkpointing
from ddpm.training.module import DiffusionModule, OptimizerSettings

LOADER_ARGUMENTS = ("batch_size", "num_workers", "split")


def settle(config: DictConfig) -> None:
    """Decide the precision if the machine is to: what the run is, and so what is saved, holds the decision."""
    if config.trainer.precision == "auto":
        able = hardware.multiplies_bfloat16(hardware.device_type(config.trainer.accelerator))
        config.trainer.precision = "bf16-mixed" if able else "32-true"


def check_devices(settings: DictConfig) -> None:
    """Whether Lightning can compute where and as the trainer's settings say.

    Raises:
        ValueError: it cannot.
    """
    quieten()
    try:
        L.Trainer(
            **_where(settings),
            precision=settings.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        asked = ", ".join(f"{key}={settings[key]}" for key in ("accelerator", "devices", "strategy", "precision"))
        raise ValueError(f"a trainer with {asked} is not possible here: {error}") from error


def dataset(config: DictConfig) -> Dataset:
    arguments = {key: value for key, value in config.data.items() if key not in LOADER_ARGUMENTS}
    built: Dataset = instantiate(OmegaConf.create(arguments))
    return built


def data_module(config: DictConfig, images: Dataset) -> DataModule:
    """The data, prepared and opened: what cannot be read or shared out fails here."""
    data = DataModule(
        images,
        config.data.batch_size,
        config.seed,
        config.max_steps,
        config.trainer.accumulate,
        config.data.num_workers,
        resident=config.trainer.resident,
    )
    data.prepare_data()
    data.setup()
    return data


def network(config: DictConfig, images: Dataset) -> torch.nn.Module:
    """A freshly initialised network for data of this shape."""
    channels, *size = images.shape
    outputs = 2 if instantiate(config.variance).learned else 1
    sized = {"image_size": tuple(size)} if size else {}
    torch.manual_seed(seed_of(config.seed))
    built: torch.nn.Module = instantiate(config.network, in_channels=channels, out_channels=channels * outputs, **sized)
    return built


def reverse_process(config: DictConfig, images: Dataset) -> ReverseProcess:
    """The forward process, a fresh network and the axes, for data of this shape."""
    decoder = DiscretizedDecoder(config.evaluation.bits_per_dim.decoder) if images.discrete else ContinuousDecoder()
    return ReverseProcess(
        network(config, images),
        ForwardProcess(instantiate(config.schedule)),
        instantiate(config.prediction),
        instantiate(config.variance),
        decoder,
    )


def module(config: DictConfig, images: Dataset) -> DiffusionModule:
    built = DiffusionModule(
        reverse_process(config, images),
        instantiate(config.objective),
        instantiate(config.timesteps),
        OptimizerSettings(**config.optimizer),
        ema_decay=config.ema.decay,
        seed=config.seed,
        horizontal_flip=images.horizontal_flip,
        log_every=config.every.log,
        config=plain(config),
    )
    for each in (built.p.network, built.p_ema.network):
        speed_up(each, config.trainer)
    return built


def speed_up(network: torch.nn.Module, trainer: DictConfig) -> None:
    """Layout, compilation, attention's precision, all in place: no name in the state changes; malloc's habits.

    Raises:
        ValueError: nothing can be compiled here.
    """
    hardware.keep_freed_memory()
    hardware.narrow_attention()
    on_gpu = hardware.device_type(trainer.accelerator) == "cuda"
    if on_gpu if trainer.channels_last == "auto" else trainer.channels_last:
        network.to(memory_format=torch.channels_last)
    if trainer.compile:
        hardware.require_compiler()
        network.compile(mode=trainer.compile, dynamic=False)


def check_resumed(saved: Checkpoint, module: DiffusionModule, images: Dataset) -> None:
    """Whether a run can go on with this model and these images.

    Raises:
        ValueError: it cannot.
    """
    if problem := misfit(saved.weights, module.p_ema.network.state_dict()):
        raise ValueError(f"{saved.path} does not hold the weights of its configuration: {problem}")
    if saved.data != images.fingerprint:
        raise ValueError(
            f"the run was trained on other images ({saved.data}) than there are now ({images.fingerprint})"
        )


def trained(checkpoint: Checkpoint, config: DictConfig, images: Dataset) -> ReverseProcess:
    """The reverse process with the checkpoint's averaged weights, ready to be evaluated.

    Raises:
        ValueError: the weights are not this network's.
    """
    p = reverse_process(config, images)
    weights = converters.split_qkv(checkpoint.weights, p.network)
    if problem := misfit(weights, p.network.state_dict()):
        raise ValueError(f"{checkpoint.path} does not hold the weights of its configuration: {problem}")
    p.network.load_state_dict(weights)
    speed_up(p.network, config.trainer)
    return p.requires_grad_(False).eval()


def sampler(config: DictConfig) -> Sampler:
    built: Sampler = instantiate(config.sampler)
    return built


def features(config: DictConfig) -> FeatureExtractor:
    built: FeatureExtractor = instantiate(config.features)
    return built


def sample_metrics(config: DictConfig) -> dict[str, SampleMetric]:
    """The metrics of samples that the configuration loads, measured or not, by name and in the order of tables.

    Raises:
        ValueError: a setting out of range.
    """
    loaded = {
        str(name): section
        for name, section in config.evaluation.items()
        if isinstance(section, DictConfig) and "_target_" in section
    }
    order = dict.fromkeys([*(name for name in registry.metrics() if name in loaded), *loaded])
    return {name: instantiate(loaded[name]) for name in order}


def place(settings: DictConfig) -> Place:
    """Start the processes that share an evaluation (this one alone, by default), and say where this one stands."""
    quieten()
    end_with_launcher()
    fabric = L.Fabric(**_where(settings))
    fabric.launch()
    return Place(fabric.global_rank, fabric.world_size, fabric.device)


def place_of(runner: L.Trainer) -> Place:
    """Where this process stands in a training that is over."""
    return Place(runner.global_rank, runner.world_size, runner.strategy.root_device)


def evaluation(config: DictConfig, images: Dataset) -> Evaluation:
    """What to measure; everything that can be wrong with the request is wrong here."""
    asked, evaluations = config.evaluation, config.evaluation.bits_per_dim.evaluations
    settings = Settings(
        metrics=list(asked.metrics),
        num_samples=asked.num_samples,
        fid_split=asked.fid_split,
        bound_split=config.data.split,
        bound_images=asked.bits_per_dim.images,
        evaluations=None if evaluations is None or evaluations >= config.schedule.T else evaluations,
        decoder=asked.bits_per_dim.decoder,
        chunk=asked.chunk,
        precision=asked.precision,
        seed=asked.seed,
        **({"weights": f"as in the file ({config.foreign})"} if config.get("foreign") else {}),
    )
    return Evaluation(images, sampler(config), features(config), sample_metrics(config), settings)


def gallery(config: DictConfig, images: Dataset, checkpoint: Checkpoint, p: ReverseProcess) -> Gallery:
    """The figures that are asked for; everything that can be wrong with the request is wrong here."""
    asked, settings = config.evaluation, plain(config.figure)
    scene = Scene(
        p,
        images,
        sampler(config),
        functools.cache(lambda: features(config)),
        split="test" if config.data.split == "both" else config.data.split,
        points=settings.pop("points"),
        chunk=asked.chunk,
        seed=settings.pop("seed"),
        about=(checkpoint.name,) if config.get("foreign") else (config.name, f"step {checkpoint.step:,}"),
    )
    return Gallery(scene, list(config.figures), settings, asked.precision)


def trainer(
    config: DictConfig, folder: Path, images: Dataset, drawn_by: Sampler, saved: Checkpoint | None = None
) -> L.Trainer:
    """The Trainer with everything that happens beside the training step.

    Args:
        drawn_by: what makes its pictures.
        saved: what the run goes on from.
    """
    quieten()
    end_with_launcher()
    every, settings = config.every, config.trainer
    where = _where(settings)
    if where["strategy"] == "ddp":
        # Buffers are the same on every rank by construction.
        where["strategy"] = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    saving = checkpointing.Checkpoint(folder / "checkpoints", every.checkpoint, every.validation)
    signals = checkpointing.Signals(saving)
    draw: callbacks.Draw = functools.partial(callbacks.sample_pictures, shape=images.shape)
    if not images.discrete:
        draw = lambda *how: {"samples": plane.picture(*how, examples=images.split("train"))}  # noqa: E731
    pictures = callbacks.Pictures(
        folder,
        drawn_by,
        draw,
        every=every.samples,
        seed=config.evaluation.seed,
        between=signals.check,
    )
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
            signals,
            pictures,
            saving,
            checkpointing.Debts(saving, pictures),
        ],
        plugins=[checkpointing.CheckpointIO()],
        logger=loggers.of_training(folder, plain(config), saved.step if saved else 0) or False,
        default_root_dir=folder,
        log_every_n_steps=every.log,
        num_sanity_val_steps=0,
        benchmark=True,  # cuDNN picks the fastest convolutions: sizes do not change
        use_distributed_sampler=False,  # the DataModule's samplers know the ranks
        enable_model_summary=False,
        enable_checkpointing=False,  # ours writes after a validation that is due at the same step
    )


def summary(trained: DiffusionModule, config: DictConfig) -> str:
    """What is about to be trained, on one line."""
    axes = ("prediction", "variance", "objective", "schedule")
    parameters = sum(weights.numel() for weights in trained.p.network.parameters())
    chosen = ", ".join(str(config.choices[axis]) for axis in axes)
    steps = f"{config.max_steps:,} steps of {config.data.batch_size}"
    return f"{config.name}: {parameters:,} parameters; {chosen}; {steps}; {config.trainer.precision}"


def quieten() -> None:
    """Keep Lightning's notices about itself out of the user's output."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # ... but for which rank has died, before the others are killed.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    # A data set in memory is gathered faster by the training process than by workers.
    warnings.filterwarnings("ignore", r".*does not have many workers")
    # The averaged network is in evaluation mode on purpose.
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    # DDP under torch >= 2.15: the old name, which torch 2.11 needs; and gradients of kernels that are made of kernels.
    warnings.filterwarnings("ignore", r".*`broadcast_buffers` is deprecated")
    warnings.filterwarnings("ignore", r"Grad strides do not match bucket view strides")
    # Lightning 2.6 with torch >= 2.13, about its own internals.
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Build what `node` describes. A configuration may come from a checkpoint, so only targets that conf/ names pass.

    Raises:
        ValueError: another target, or a setting that it does not have.
    """
    for target in _targets(OmegaConf.to_container(node, resolve=True)):
        if target not in allowed_targets():
            raise ValueError(f"the configuration names {target!r}, which is not one of conf/'s targets")
    taken = inspect.signature(hydra.utils.get_object(node._target_)).parameters
    if strange := [str(name) for name in node if name not in ("_target_", *taken)]:
        name = node._target_.rpartition(".")[2]
        raise ValueError(
            f"{name} has no setting {', '.join(strange)}, which a recipe or an experiment gives it: it takes "
            f"{', '.join(key for key in taken if key in node) or 'none'}"
        )
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


@functools.cache
def allowed_targets() -> frozenset[str]:
    """Every `_target_` under conf/."""
    return frozenset(
        target for file in CONF.rglob("*.yaml") for target in _targets(OmegaConf.to_container(OmegaConf.load(file)))
    )


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers, as a checkpoint holds it."""
    container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return container


def _where(settings: DictConfig) -> dict[str, Any]:
    return {key: settings[key] for key in ("accelerator", "devices", "num_nodes", "strategy")}


def _targets(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        own = [str(tree["_target_"])] if "_target_" in tree else []
        return own + [target for value in tree.values() for target in _targets(value)]
    if isinstance(tree, list):
        return [target for value in tree for target in _targets(value)]
    return []
