"""Walks of the reverse process, and of the forward process, in pictures."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.diffusion.process import expand
from ddpm.figures import drawing
from ddpm.figures.context import FORWARD, LATENT, NOISED, FigureContext, Products, figure

EVEN = [1 - i / 12 for i in range(13)]
TOWARDS_DATA = [fraction**2 for fraction in EVEN]  # x_t changes most near t = 0
LARGEST_GRID = 400
Labels = int | list[int] | str | None  # a class, several, "all", or the data's own


def _spread(context: FigureContext, fractions: Sequence[float]) -> Sequence[float]:
    return [f for f in context.display.fractions(fractions) if f > 0]


def _check_samples(context: FigureContext, *, count: int, sort: bool, label: Labels) -> None:
    if label is not None:
        context.conditioning.wanted(_classes(context, label))
    if not sort:
        return
    if not context.images.kind.has_features or not context.features().has_logits:
        raise ValueError("figure.samples.sort=true: there is no classifier to sort by; features=digits has one")
    context.features()(torch.zeros(1, *context.images.shape, dtype=torch.uint8))


def _classes(context: FigureContext, label: int | Sequence[int] | str) -> list[int]:
    """The classes that are meant: one, several, or all."""
    if isinstance(label, str):
        return list(range(max(1, context.conditioning.classes)))
    return [label] if isinstance(label, int) else list(label)


@figure(points=True, check=_check_samples)
def samples(context: FigureContext, *, count: int, sort: bool, label: Labels) -> Products:
    """Samples in a grid, and as an array; of wanted classes, or sorted by the class that a classifier gives them.

    Several classes have a row each.
    """
    count, order = context.shown(count), ""
    if label is None:
        made = context.samples(count)
    else:
        classes = _classes(context, label)
        columns = count if len(classes) == 1 else max(1, count // len(classes))
        made = context.samples(columns * len(classes), [each for each in classes for _ in range(columns)])
        count, order = len(made), f" of class {classes[0]}" if len(classes) == 1 else ", a row for each class"
        if len(classes) > 1 and not sort and made.ndim == 4:
            picture = drawing.labelled(
                made, columns, caption=context.caption(f"{count:,} samples{order}"), beside=[*map(str, classes)]
            )
            return picture, made
    if sort:
        logits = context.features().to(context.device)(made.to(context.device)).logits
        assert logits is not None
        confidence, seen = logits.softmax(1).max(1)
        made, order = made[(seen - confidence).argsort().cpu()], f"{order}, sorted by the classifier"
    most = context.display.shown(LARGEST_GRID, count)
    first = f"{most} of {count:,} samples" if most < count else f"{count:,} samples"
    return context.display.samples(made[:most], context.caption(first + order)), made


@figure(points=True, data=True)
def forward(context: FigureContext, *, count: int, t: list[int] | None) -> Products:
    """A chain x_0, ..., x_T of q; each state is drawn given the one before."""
    times = sorted({0, *context.times(t, _spread(context, TOWARDS_DATA))})
    draw, states = context.draw(FORWARD), [context.real(context.shown(count))]
    for s, now in pairwise(times):
        beta = context.p.q.beta(*(context.at(time, len(states[0])) for time in (now, s)))
        x_s = states[-1]
        noise = torch.randn(x_s.shape, generator=draw, device=x_s.device)
        states.append(expand((1 - beta).sqrt(), x_s) * x_s + expand(beta.sqrt(), x_s) * noise)
    caption = context.caption(f"The forward process q: x_t of real {context.split} examples, by t", sampled=False)
    return context.panels([context.show(x) for x in states], times, caption)


@figure(points=True)
def reverse(context: FigureContext, *, count: int, t: list[int] | None) -> Products:
    """A chain x_T, ..., x_0 of p."""
    times = [*context.visited(context.times(t, _spread(context, TOWARDS_DATA))), 0]
    states = [context.show(s.x_t) for _, s in context.chain("reverse", context.shown(count)) if s.t in times]
    return context.panels(states, times, context.caption("The reverse process p: x_t by t; t = 0 is the sample"))


@figure(points=True)
def progressive(context: FigureContext, *, count: int, t: list[int] | None) -> Products:
    """Estimates of x_0 along the reverse chain; Figure 6."""
    times = context.visited([*context.times(t, _spread(context, EVEN)), 1])
    walk = context.chain("progressive", context.shown(count))
    states = [context.show(state.x_0) for now, state in walk if now in times]
    what = "Progressive generation: the estimate of x_0 from x_t, by t; that at t = 1 is the sample"
    return context.panels(states, times, context.caption(what))


@figure(points=True)
def film(context: FigureContext, *, count: int, frames: int) -> Products:
    """The reverse chain as an animation."""
    visited = [*context.sampler.steps(context.p.q), 0]
    shown = {visited[round(i * (len(visited) - 1) / (frames - 1))] for i in range(frames)}
    states = [(s.t, context.show(s.x_t)) for _, s in context.chain("film", context.shown(count)) if s.t in shown]

    return (drawing.Film([context.display.frame(x_t, f"t = {t} of {context.T}") for t, x_t in states]),)


def _check_stochastic(context: FigureContext, *, count: int, t: list[int] | None) -> None:
    if not context.sampler.stochastic:
        raise ValueError(
            "figures=[shared_latents] shows what is random given x_t, and with this sampler nothing is: "
            "use sampler=ancestral, or sampler=ddim sampler.eta=1"
        )


def latents(context: FigureContext, times: Sequence[int]) -> dict[int, Float[Tensor, "1 *event"]]:
    """One chain's x_t at these t."""
    return {state.t: state.x_t for _, state in context.chain("latents", 1) if state.t in times}


@figure(check=_check_stochastic)
def shared_latents(context: FigureContext, *, count: int, t: list[int] | None) -> Products:
    """Samples of p(x_0 | x_t) for several t of one chain; Figure 7."""
    times = context.visited(context.times(t, [1.0, 0.75, 0.5, 0.25, 0.1]))
    rows = []
    for now, x_t in latents(context, times).items():
        shared = x_t.expand(count, *x_t.shape[1:])
        told = context.told([0] * count)
        x_0 = context.decode(f"shared_latents, t = {now}", shared, context.draw(LATENT, now), told, now)
        rows.append(torch.cat([x_t, x_0]))
    labels = [f"t = {now}" for now in times]
    caption = context.caption("Samples of p(x_0 | x_t) that share the x_t at their left, which are of one chain")
    pictures = context.show(torch.cat(rows))
    above = ["$x_t$", *([""] * (count // 2)), "$x_0$", *([""] * (count - count // 2 - 1))]
    return (drawing.labelled(pictures, count + 1, caption=caption, above=above, beside=labels),)


@figure(data=True)
def denoise(context: FigureContext, *, count: int, t: list[int] | None) -> Products:
    """Real images with noise, and the network's posterior mean E[x_0 | x_t], from one evaluation for each t."""
    times = sorted(context.times(t, [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0]))
    x_0 = context.real(count)
    count = len(x_0)
    p, noise = context.given_real(count), context.noise(count, context.draw(NOISED))
    columns = [torch.stack([x_0, x_0], 1)]
    for now in times:
        at = context.at(now, count)
        x_t = context.p.q.diffuse(x_0, at, noise)
        columns.append(torch.stack([x_t, p(x_t, at).x_0], 1))
    rows = torch.stack(columns, 2).flatten(0, 2)  # image, then x_t or estimate, then t
    what = f"Real {context.split} images with noise, x_t, and the estimate of x_0 from it by one evaluation, by t"
    return (
        drawing.labelled(
            context.show(rows),
            len(columns),
            caption=context.caption(what, sampled=False),
            above=["0", *map(str, times)],
            beside=["$x_t$", r"$\hat{x}_0$"] * count,
            corner="t",
        ),
    )
