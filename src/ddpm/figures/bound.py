"""The bound and the losses by t."""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.diffusion.likelihood import Bound, Term, bound_term, prior_term
from ddpm.figures import drawing
from ddpm.figures.context import BOUND, FigureContext, Products, figure
from ddpm.metrics import codecs
from ddpm.progress import Bar


@dataclass(frozen=True)
class Losses:
    """All that one evaluation of the network at each t says of the same examples; columns are t = 1..T."""

    bound: Bound
    simple: Float[Tensor, "b T"]  # the squared error of the network's output, mean over dimensions


@functools.lru_cache(maxsize=1)  # two figures show it
def losses(context: FigureContext, count: int) -> Losses:
    """Of the first real examples, one draw of x_t for each and each t."""
    x_0 = context.real(count)
    p, draw, terms, simple = context.given_real(count), context.draw(BOUND), [], []
    with Bar("bound", context.T) as bar:
        for now in bar.watch(range(context.T, 0, -1)):
            t, noise = context.at(now, len(x_0)), context.noise(len(x_0), draw)
            x_t = p.q.diffuse(x_0, t, noise)
            estimate = p(x_t, t, clip=True)
            missed = (p.prediction.target(p.q, x_0, noise, t) - estimate.output).square().flatten(1).mean(1)
            squared_error = (x_0 - estimate.x_0).square().flatten(1).mean(1)
            terms.append(Term(now, bound_term(p, estimate, x_0, x_t, t).cpu(), squared_error.cpu()))
            simple.append(missed.cpu())
    return Losses(Bound.of(prior_term(p.q, x_0).cpu(), terms), torch.stack(simple[::-1], 1))


@figure(data=True)
def rate_distortion(context: FigureContext, *, count: int) -> Products:
    """Distortion and rate by t, and one against the other, beside codecs' for the same images; Figure 5."""
    bound = losses(context, count).bound
    rate, rmse = bound.rate_distortion(math.prod(context.images.shape))
    caption = context.caption(f"Rate and distortion of {len(bound.prior)} {context.split} images", sampled=False)
    others = (
        codecs.curves(codecs.with_loss(context.show(context.real(count)))) if codecs.take(context.images.shape) else {}
    )
    return (drawing.rates(rate, rmse, caption, codecs.lines(others)),)


@figure(points=True, data=True)
def loss_by_t(context: FigureContext, *, count: int) -> Products:
    """The terms L_{t-1} of the bound and the simple loss."""
    found = losses(context, context.shown(count))
    kind = context.images.kind
    terms = found.bound.terms / kind.scale(math.prod(context.images.shape))
    shown = f"{len(found.simple):,} {context.split} examples ± 2 standard errors"
    without = "" if not kind.density else "; L_0, a density, is left out where it is negative"
    caption = context.caption(f"The bound's terms and the simple loss by t, {shown}{without}", sampled=False)
    return (
        drawing.losses(
            terms,
            kind.unit,
            found.simple,
            context.p.prediction.symbol,
            caption,
        ),
    )
