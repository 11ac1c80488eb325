"""What is refused before an evaluation begins."""

from collections.abc import Mapping

import torch

from ddpm.data.conditioning import Conditioning
from ddpm.data.dataset import Dataset
from ddpm.data.kind import KINDS
from ddpm.diffusion import budget
from ddpm.evaluation.settings import EvaluationSettings
from ddpm.hardware import check_precision
from ddpm.metrics.features import FeatureExtractor
from ddpm.metrics.metric import SampleMetric


def check(
    images: Dataset,
    extractor: FeatureExtractor,
    metrics: Mapping[str, SampleMetric],
    settings: EvaluationSettings,
    conditioning: Conditioning,
) -> None:
    """Check that what is asked for can be measured of this dataset, which is prepared, with these features.

    Args:
        metrics: of samples, all that could be asked for, by name.
        conditioning: what the network is told.

    Raises:
        ValueError: it cannot.
    """
    wanted = {name: metric for name, metric in metrics.items() if name in settings.metrics}
    if wanted:
        _check_features(images, extractor, wanted, settings)
        _check_labels(images, extractor, wanted, settings.section, conditioning)
    check_precision(settings.precision)
    if settings.evaluations is not None:
        budget.split_budget(settings.evaluations)


def check_names(images: Dataset, metrics: Mapping[str, SampleMetric], settings: EvaluationSettings) -> None:
    """Check that there are metrics of these names for such a dataset, which need not be prepared.

    Raises:
        ValueError: there are not.
    """
    wanted, kind = set(settings.metrics), images.kind
    known = (*metrics, *(each.bound for each in KINDS))
    if unknown := sorted(wanted - {*known}):
        raise ValueError(f"{settings.section}.metrics: {', '.join(unknown)} unknown; known are {', '.join(known)}")
    fitting = [*(metrics if kind.has_features else ()), kind.bound]
    if not wanted:
        raise ValueError(f"{settings.section}.metrics is empty: choose from {', '.join(fitting)}")
    if wrong := sorted(wanted - set(fitting)):
        there = " or ".join(other.name for other in KINDS if other is not kind)
        raise ValueError(
            f"{settings.section}.metrics: {', '.join(wrong)} measures {there}, and {images.name} is {kind.name}: "
            f"choose from {', '.join(fitting)}"
        )


def _check_features(
    images: Dataset, extractor: FeatureExtractor, wanted: Mapping[str, SampleMetric], settings: EvaluationSettings
) -> None:
    extractor(torch.zeros(1, *images.shape, dtype=torch.uint8))  # does it take images of this shape?
    for name, metric in wanted.items():
        if metric.needs_logits and not extractor.has_logits:
            raise ValueError(
                f"features={extractor.name} has no classes, so no {name}: leave it out of {settings.section}.metrics"
            )
    for name, metric in wanted.items():
        needs = f"{name} needs {metric.fewest} or more" + (f"; or {metric.remedy}" if metric.remedy else "")
        if settings.num_samples < metric.fewest:
            raise ValueError(f"{settings.section}.num_samples={settings.num_samples}: {needs}")
        for split in settings.reference_splits if metric.needs_reference else []:
            if (n := len(images.split(split))) < metric.fewest:
                raise ValueError(f"evaluation.fid_split={split} has {n} images: {needs}")


def _check_labels(
    images: Dataset,
    extractor: FeatureExtractor,
    wanted: Mapping[str, SampleMetric],
    section: str,
    conditioning: Conditioning,
) -> None:
    for name, metric in ((name, metric) for name, metric in wanted.items() if metric.needs_labels):
        if not conditioning.classes:
            raise ValueError(
                f"{section}.metrics: {name} needs samples that were told a class, and this network knows none: "
                "leave it out, or train with condition=label"
            )
        if metric.needs_logits and extractor.classifies != images.name:
            raise ValueError(
                f"{section}.metrics: {name} needs a classifier of {images.name}'s classes, and "
                f"features={extractor.name} is none: leave it out"
            )
