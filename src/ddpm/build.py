"""Objects are built from a configuration here, the only place where networks, mathematics and data meet."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from ddpm import hardware
from ddpm.checkpoints import checkpoint, converters, snapshots
from ddpm.checkpoints.checkpoint import Checkpoint, check_weights, misfit
from ddpm.config.evaluation import NO_SAMPLES, compose_evaluation, is_converted
from ddpm.config.saved import plain
from ddpm.data.conditioning import Conditioning, classes_of
from ddpm.data.dataset import Dataset
from ddpm.data.module import DataModule
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.diffusion.timesteps import Timesteps
from ddpm.diffusion.variance import Variance
from ddpm.evaluation.evaluation import Evaluation
from ddpm.evaluation.settings import EvaluationSettings
from ddpm.figures.context import FigureContext, NamedFigure
from ddpm.figures.figures import FigureSet
from ddpm.instantiate import instantiate, resolve, takes
from ddpm.messages import say
from ddpm.metrics import registry
from ddpm.metrics.features import FeatureExtractor, Missing, OutOfReachError
from ddpm.metrics.metric import SampleMetric
from ddpm.networks.network import Network
from ddpm.randomness import seed_of
from ddpm.samplers.times import read as read_times
from ddpm.training import resumable
from ddpm.training.module import DiffusionModule
from ddpm.training.optimizer import OptimizerSettings


def dataset(config: DictConfig, given: Dataset | None = None) -> Dataset:
    """The dataset of the configuration, or the one that is given in its place.

    No data are read yet, unless it takes them to count their classes.

    Where the condition leaves their number open, it is written into the configuration, and so into what is saved.

    Raises:
        DataError: the condition needs classes, and there are none.
    """
    built = given or instantiate(config.data, Dataset)
    if config.condition.get("classes", 0) is None:
        config.condition.classes = classes_of(built)
    return built


def conditioning(config: DictConfig) -> Conditioning:
    """What the network is told of each example.

    Raises:
        ValueError: there are pairs of pictures, and it is not told of them.
    """
    if config.data.get("condition_path") and config.condition.get("source") != "paired":
        raise ValueError("data.condition_path is told to a network with condition=image condition.source=paired")
    return instantiate(config.condition, Conditioning)


def data_module(config: DictConfig, images: Dataset, processes: int = 1) -> DataModule:
    """Prepare and open the data; what cannot be read, or shared out among the processes, fails here."""
    data = DataModule(
        images,
        config.loader.batch_size,
        config.seed,
        config.max_steps,
        config.trainer.accumulate,
        config.loader.num_workers,
        resident=config.trainer.resident,
        processes=processes,
        chunk=config.evaluation.chunk,
        conditioning=conditioning(config),
        validated=config.evaluation.bits_per_dim.images,
    )
    data.prepare_data()
    data.setup()
    return data


def network(config: DictConfig, images: Dataset) -> Network:
    """A freshly initialised network for data of this shape, and for what it is told of them.

    With a learned variance it has a second output per channel.
    """
    channels, *size = images.shape
    outputs = 2 if instantiate(config.variance, Variance).learned else 1
    sized = {"image_size": tuple(size)} if size and takes(config.network, "image_size") else {}
    told = conditioning(config).network_arguments(images.shape)
    made_for = {"in_channels": channels, "out_channels": channels * outputs, **sized, **told}
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as they were
        torch.default_generator.manual_seed(seed_of(config.seed))
        return instantiate(config.network, Network, **made_for)


def reverse_process(config: DictConfig, images: Dataset) -> ReverseProcess:
    """The forward process, a fresh network and the axes, for data of this shape."""
    return ReverseProcess(
        network(config, images),
        ForwardProcess(instantiate(config.schedule, torch.Tensor)),
        instantiate(config.prediction, Prediction),
        instantiate(config.variance, Variance),
        images.kind.decoder(config.evaluation.bits_per_dim.decoder),
    )


def module(config: DictConfig, images: Dataset, start: Checkpoint | None = None) -> DiffusionModule:
    """The LightningModule of a configuration; its network and their average begin with `start`'s weights, if given.

    Raises:
        ValueError: the weights of `start` are not those of a network for these data, or no checkpoint can hold the
            network's buffers.
    """
    data = f"data of shape {'x'.join(map(str, images.shape))}"
    hint = "for images of another size, network.attention_resolutions= says where it has attention"
    weights = _fitting(start, config, images, f"does not fit {data} ({hint})") if start else None
    p = reverse_process(config, images)
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
        horizontal_flip=images.horizontal_flip,
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


def speed_up(network: torch.nn.Module, trainer: DictConfig) -> None:
    """Set the network's layout and compilation in place, and PyTorch up for it (attention, freed memory).

    No name in the state_dict changes.

    Raises:
        ValueError: nothing can be compiled here.
    """
    hardware.keep_freed_memory()
    hardware.narrow_attention()
    lay_out(network, trainer)
    if trainer.compile:
        hardware.require_compiler()
        network.compile(mode=trainer.compile, dynamic=False)


def lay_out(network: torch.nn.Module, trainer: DictConfig) -> None:
    """Set the memory layout of weights in place."""
    on_gpu = hardware.device_type(trainer.accelerator) == "cuda"
    if on_gpu if trainer.channels_last == "auto" else trainer.channels_last:
        network.to(memory_format=torch.channels_last)


def check_resumed(saved: Checkpoint, module: DiffusionModule, images: Dataset) -> None:
    """Check that a run can go on with this model and these images.

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
    if saved.data != images.fingerprint:
        raise ValueError(
            f"the run was trained on other images ({saved.data}) than there are now ({images.fingerprint})"
        )


def trained(saved: Checkpoint, config: DictConfig, images: Dataset) -> ReverseProcess:
    """The reverse process with the checkpoint's averaged weights, ready to be evaluated.

    Where the configuration asks for an average of another length (`ema.length`), the run's snapshots make it.

    Raises:
        ValueError: the weights are not this network's, or no such average can be made.
    """
    weights = _fitting(saved, config, images, "does not hold the weights of its configuration")
    p = reverse_process(config, images)
    length, own = config.ema.get("length"), (saved.config.get("ema") or {}).get("length")
    if length != own:
        if length is None:
            raise ValueError(f"{saved.path} holds one average of the weights, of ema={own}")
        names = [name for name, _ in p.network.named_parameters()]
        weights = weights | snapshots.average(saved, names, config.ema.lengths, length)
    p.network.load_state_dict(weights)
    speed_up(p.network, config.trainer)
    return p.requires_grad_(False).eval()


def _fitting(saved: Checkpoint, config: DictConfig, images: Dataset, complaint: str) -> dict[str, torch.Tensor]:
    """The checkpoint's weights, if they are those of the configuration's network for data of this shape.

    Args:
        complaint: how a message goes on after the checkpoint's path.

    Raises:
        ValueError: they are not.
    """
    with torch.device("meta"):  # shapes are compared before anything is allocated
        shapes = network(config, images)
    weights = converters.split_qkv(saved.weights, shapes)
    if problem := misfit(weights, shapes.state_dict()):
        raise ValueError(f"{saved.path} {complaint}: {problem}")
    return weights


def callbacks(config: DictConfig) -> list[Callback]:
    """A user's own callbacks of Lightning's Trainer.

    Raises:
        ValueError: one of them is no callback, or has no such setting.
    """
    return [instantiate(each, Callback) for each in (config.get("callbacks") or {}).values()]


def sampler(config: DictConfig) -> Sampler:
    """The sampler of the configuration, with the times of its file if it names one.

    Raises:
        ValueError: a setting out of range, or a sampler that this schedule does not allow.
    """
    q = ForwardProcess(instantiate(config.schedule, torch.Tensor))
    file = config.sampler.get("times")
    times = {"times": read_times(Path(file).expanduser(), q)} if file else {}
    built = instantiate(config.sampler, Sampler, **times)
    built.steps(q)  # or it would be refused when the first samples are drawn
    return built


def guidance(config: DictConfig, images: Dataset) -> Guidance:
    """The way in which samples are guided; a weaker checkpoint that it needs is loaded.

    Raises:
        ValueError: that is missing, or a model that this one cannot be led away from.
    """
    weak = {"weak": _weak(config, images)} if "weak" in config.guidance else {}
    return instantiate(config.guidance, Guidance, **weak)


def _weak(config: DictConfig, images: Dataset) -> torch.nn.Module:
    """The network of the checkpoint `guidance.weak`, of the same shape, prediction, schedule and condition."""
    if not (path := config.guidance.weak):
        raise ValueError("guidance.weak= is missing: a weaker checkpoint of the same data, as guidance.weak=RUN_FOLDER")
    saved = checkpoint.load(path)
    theirs = compose_evaluation(saved.config, _overrides_of_weak(saved.config, config))
    same = {
        "images": images.shape == dataset(theirs).shape,
        "prediction": config.prediction == theirs.prediction,
        "schedule": torch.equal(*(instantiate(each.schedule, torch.Tensor) for each in (config, theirs))),
        "condition": {**config.condition, "drop": 0} == {**theirs.condition, "drop": 0},
    }
    if other := [name for name, agrees in same.items() if not agrees]:
        raise ValueError(
            f"guidance.weak={path} is a model of another kind, with other {', '.join(other)}: use one of "
            "the same data and axes that was trained for less long, or is smaller"
        )
    return trained(saved, theirs, images).network


def _overrides_of_weak(theirs: dict[str, Any], ours: DictConfig) -> list[str]:
    """The overrides that complete another codebase's file: a sampler for any T, and our recipe if it names none."""
    if not is_converted(theirs):
        return []
    named = any(word.startswith("recipe=") for word in (*theirs["stated"], *theirs["assumed"]))
    return [*NO_SAMPLES, *([] if named else [f"recipe={ours.choices.recipe}"])]


def features(config: DictConfig) -> FeatureExtractor:
    """The feature extractor of the configuration; its weights are read, and fetched if need be."""
    return instantiate(config.features, FeatureExtractor)


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
    return {name: instantiate(loaded[name], SampleMetric) for name in order}


def evaluation(config: DictConfig, images: Dataset) -> Evaluation:
    """The evaluation that the configuration asks for; whatever is wrong with the request fails here."""
    return _evaluation(config, images, _evaluation_settings(config))


def sample_metrics_in_training(config: DictConfig, images: Dataset) -> Evaluation | None:
    """The evaluation that measures a few samples while a run trains; None where that is not asked for.

    Raises:
        ValueError: it cannot be measured.
    """
    if not config.every.metrics:
        return None
    asked, few = _evaluation_settings(config), config.validation
    metrics = [str(name) for name in few.metrics]
    if images.kind.bound in metrics:
        raise ValueError(f"validation.metrics: {images.kind.bound} is of every validation: leave it out")
    split = asked.reference_splits[0]
    settings = replace(asked, metrics=metrics, num_samples=few.num_samples, fid_split=split, section="validation")
    return _evaluation(config, images, settings)


def _evaluation_settings(config: DictConfig) -> EvaluationSettings:
    asked, evaluations = config.evaluation, config.evaluation.bits_per_dim.evaluations
    return EvaluationSettings(
        metrics=list(asked.metrics),
        num_samples=asked.num_samples,
        fid_split=asked.fid_split,
        bound_split=config.evaluation.split,
        bound_images=asked.bits_per_dim.images,
        evaluations=None if evaluations is None or evaluations >= config.schedule.T else evaluations,
        decoder=asked.bits_per_dim.decoder,
        chunk=asked.chunk,
        precision=asked.precision,
        seed=asked.seed,
        weights=_weights_in_words(config),
    )


def _evaluation(config: DictConfig, images: Dataset, settings: EvaluationSettings) -> Evaluation:
    metrics = sample_metrics(config)
    told, led = conditioning(config), guidance(config, images)
    try:
        extractor = features(config)
    except OutOfReachError as error:
        if not metrics.keys().isdisjoint(settings.metrics):
            raise
        say(f"samples are drawn, and not measured: {error}; with these, evaluation.metrics=[fid,{images.kind.bound}]")
        extractor = Missing(str(config.features.get("name") or config.choices.get("features")))
    return Evaluation(images, sampler(config), extractor, metrics, settings, told, led)


def _weights_in_words(config: DictConfig) -> str:
    """Which weights are measured, as the protocol says it."""
    if config.get("foreign"):
        return f"as in the file ({config.foreign})"
    length = config.ema.get("length")
    return f"power-function average, sigma_rel {length}" if length else "exponential moving average"


def figures(config: DictConfig, images: Dataset, saved: Checkpoint, p: ReverseProcess) -> FigureSet:
    """The figures that the configuration asks for; whatever is wrong with the request fails here."""
    asked, settings = config.evaluation, plain(config.figure)
    context = FigureContext(
        p,
        images,
        conditioning(config),
        sampler(config),
        guidance(config, images),
        functools.cache(lambda: features(config)),
        split="test" if config.evaluation.split == "both" else config.evaluation.split,
        points=settings.pop("points"),
        chunk=asked.chunk,
        seed=settings.pop("seed"),
        about=(saved.name,) if config.get("foreign") else (config.name, f"step {saved.step:,}"),
    )
    known = {name: resolve(section.pop("_target_"), NamedFigure) for name, section in settings.items()}
    return FigureSet(context, known, list(config.figures), settings, asked.precision)


def summary(trained: DiffusionModule, config: DictConfig) -> str:
    """One line on what is about to be trained."""
    axes = ("prediction", "variance", "objective", "schedule")
    parameters = sum(weights.numel() for weights in trained.p.network.parameters())
    chosen = ", ".join(str(config.choices[axis]) for axis in axes)
    steps = f"{config.max_steps:,} steps of {config.loader.batch_size}"
    return f"{config.name}: {parameters:,} parameters; {chosen}; {steps}; {config.trainer.precision}"
