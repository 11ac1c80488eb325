"""What is measured and drawn of a model: evaluations, their metrics, and figures."""

import functools
from dataclasses import replace

from omegaconf import DictConfig

from ddpm.build.data import conditioning
from ddpm.build.sampling import guidance, sampler
from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.config.saved import plain
from ddpm.data.dataset import Dataset
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.evaluation.evaluation import Evaluation
from ddpm.evaluation.settings import EvaluationSettings
from ddpm.figures.context import FigureContext, NamedFigure
from ddpm.figures.figures import FigureSet
from ddpm.instantiate import instantiate, resolve
from ddpm.messages import say
from ddpm.metrics import registry
from ddpm.metrics.features import FeatureExtractor, Missing, OutOfReachError
from ddpm.metrics.metric import SampleMetric


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


def evaluation(config: DictConfig, dataset: Dataset) -> Evaluation:
    """The evaluation that the configuration asks for; whatever is wrong with the request fails here."""
    return _evaluation(config, dataset, _evaluation_settings(config))


def sample_metrics_in_training(config: DictConfig, dataset: Dataset) -> Evaluation | None:
    """The evaluation that measures a few samples while a run trains; None where that is not asked for.

    Raises:
        ValueError: it cannot be measured.
    """
    if not config.every.metrics:
        return None
    asked, few = _evaluation_settings(config), config.validation
    metrics = [str(name) for name in few.metrics]
    if dataset.kind.bound in metrics:
        raise ValueError(f"validation.metrics: {dataset.kind.bound} is of every validation: leave it out")
    split = asked.reference_splits[0]
    settings = replace(asked, metrics=metrics, num_samples=few.num_samples, fid_split=split, section="validation")
    return _evaluation(config, dataset, settings)


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


def _evaluation(config: DictConfig, dataset: Dataset, settings: EvaluationSettings) -> Evaluation:
    metrics = sample_metrics(config)
    told, led = conditioning(config), guidance(config, dataset)
    try:
        extractor = features(config)
    except OutOfReachError as error:
        if not metrics.keys().isdisjoint(settings.metrics):
            raise
        say(f"samples are drawn, and not measured: {error}; with these, evaluation.metrics=[fid,{dataset.kind.bound}]")
        extractor = Missing(str(config.features.get("name") or config.choices.get("features")))
    return Evaluation(dataset, sampler(config), extractor, metrics, settings, told, led)


def _weights_in_words(config: DictConfig) -> str:
    """Which weights are measured, as the protocol says it."""
    if config.get("foreign"):
        return f"as in the file ({config.foreign})"
    length = config.ema.get("length")
    return f"power-function average, sigma_rel {length}" if length else "exponential moving average"


def figures(config: DictConfig, dataset: Dataset, saved: Checkpoint, p: ReverseProcess) -> FigureSet:
    """The figures that the configuration asks for; whatever is wrong with the request fails here."""
    asked, settings = config.evaluation, plain(config.figure)
    context = FigureContext(
        p,
        dataset,
        conditioning(config),
        sampler(config),
        guidance(config, dataset),
        functools.cache(lambda: features(config)),
        split="test" if config.evaluation.split == "both" else config.evaluation.split,
        points=settings.pop("points"),
        chunk=asked.chunk,
        seed=settings.pop("seed"),
        about=(saved.name,) if config.get("foreign") else (config.name, f"step {saved.step:,}"),
    )
    known = {name: resolve(section.pop("_target_"), NamedFigure) for name, section in settings.items()}
    return FigureSet(context, known, list(config.figures), settings, asked.precision)
