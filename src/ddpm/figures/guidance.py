"""What guidance does: to a sample of each class, and to the metrics of many."""

from dataclasses import replace

import torch

from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.wide import with_float64
from ddpm.figures import drawing
from ddpm.figures.context import GUIDED, FigureContext, Products, figure
from ddpm.metrics.agreement import Agreement
from ddpm.metrics.features import Features
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.metric import Reference, SampleMetric
from ddpm.metrics.statistics import FeatureMoments


def _check(context: FigureContext, *, labels: list[int] | None, scales: list[float]) -> None:
    context.conditioning.wanted(labels or [0])
    if not context.conditioning.drop:
        raise ValueError("guidance: this network was never trained without its condition (condition.drop=0)")


@figure(check=_check)
def guidance(context: FigureContext, *, labels: list[int] | None, scales: list[float]) -> Products:
    """A sample of each class, guided ever more from left to right; the noise is the same along a row."""
    classes = labels or list(range(context.conditioning.classes))
    columns = []
    for scale in scales:
        draw, guided = context.draw(GUIDED), replace(context, guidance=ClassifierFree(float(scale)))
        told = context.conditioning.wanted(classes)
        x_0 = guided.decode(f"guidance {scale:g}", context.noise(len(classes), draw), draw, told)
        columns.append(context.show(x_0))
    picture = drawing.labelled(
        torch.stack(columns, 1).flatten(0, 1),
        len(scales),
        caption=context.caption("Samples of each class, by the weight w of classifier-free guidance"),
        above=[f"{scale:g}" for scale in scales],
        beside=[*map(str, classes)],
        corner="w",
    )
    return (picture,)


def _check_curve(context: FigureContext, *, scales: list[float], count: int) -> None:
    _check(context, labels=None, scales=scales)
    extractor = context.features()
    if not extractor.has_logits or extractor.classifies != context.images.name:
        raise ValueError(f"figures=[guidance_curve]: features={extractor.name} does not classify {context.images.name}")
    if count < InceptionScore().fewest:
        raise ValueError(f"figure.guidance_curve.count={count}: use {InceptionScore().fewest} at least")


@figure(data=True, check=_check_curve)
def guidance_curve(context: FigureContext, *, scales: list[float], count: int) -> Products:
    """FID, the Inception Score and agreement with the label of samples, by the weight of guidance."""
    extractor = context.features().to(context.device)
    examples = context.images.split(context.split)
    moments = FeatureMoments(extractor.width).to(with_float64(context.device))
    for first in range(0, len(examples), context.chunk):
        some = examples.__getitems__(list(range(first, min(first + context.chunk, len(examples)))))
        moments.update(extractor(some.to(context.device)).pool)
    reference = Reference(context.split, moments.compute())
    told = context.told(range(count))
    labels = None if told is None else told.labels
    found: dict[str, list[float]] = {}
    for scale in scales:
        made = replace(context, guidance=ClassifierFree(float(scale))).samples(count)
        metrics: list[SampleMetric] = [FrechetDistance(), InceptionScore(), Agreement()]
        for metric in metrics:
            metric.begin(extractor.width, context.device)
        for first in range(0, count, context.chunk):
            which = torch.arange(first, min(first + context.chunk, count))
            pool, logits, _ = extractor(made[which].to(context.device))
            for metric in metrics:
                metric.update(Features(pool, logits, None if labels is None else labels[which]), which)
        for metric in metrics:
            for name, numbers in metric.compute(count, reference if metric.needs_reference else None).items():
                found.setdefault(name, []).append(numbers["value"])
    caption = context.caption(
        f"{count:,} samples by the weight w of classifier-free guidance, FID against the {context.split} split: "
        + "; ".join(
            f"w = {scale:g}: " + ", ".join(f"{name} {values[k]:.3f}" for name, values in found.items())
            for k, scale in enumerate(scales)
        )
    )
    return (drawing.curves(list(scales), found, "guidance weight w", caption),)
