"""Real images of which a part is missing, filled in by a model that was trained for no such thing."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.data.picture import PictureTransform
from ddpm.diffusion.posterior import DPS, MMPS, Measurement, repaint
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.figures import drawing
from ddpm.figures.context import INPAINTED, Event, FigureContext, Products, figure
from ddpm.figures.interpolation import from_file, from_split
from ddpm.progress import Bar

HALVES = ("left", "right", "top", "bottom")  # masks by name: what is known
GRAY = 128  # what is transparent is neither known nor unknown
STD = 0.02  # of the measurement of known pixels; 2.5 gray levels

Fill = Callable[[FigureContext, ReverseProcess, Event, Tensor, int], Event]


def mask_of(context: FigureContext, mask: str) -> Float[Tensor, "1 h w"]:
    """1 where pixels are known, 0 elsewhere: a half of the image by name, or a black and white file (white is known).

    Raises:
        ValueError: the file is no such picture of the model's size.
    """
    _, height, width = context.images.shape
    if mask in HALVES:
        known = torch.zeros(1, height, width, device=context.device)
        first, last = mask in ("left", "top"), mask in ("right", "bottom")
        dim = 2 if mask in ("left", "right") else 1
        half = known.shape[dim] // 2
        known.narrow(dim, 0 if first else known.shape[dim] - half, half).fill_(float(first or last))
        return known
    path = Path(mask).expanduser()
    transform = PictureTransform(1, height, width, background=(GRAY, GRAY, GRAY))
    try:
        levels = torch.tensor(transform.exactly(path.read_bytes()))
    except (OSError, ValueError) as error:
        halves = ", ".join(HALVES)
        raise ValueError(f"figure.inpaint.mask={mask}: use {halves}, or a black and white picture ({error})") from None
    if strange := sorted(set(levels.flatten().tolist()) - {0, 255}):
        raise ValueError(
            f"figure.inpaint.mask={mask} has gray level {strange[0]}: it must be black and white, and opaque"
        )
    if len(set(levels.flatten().tolist())) == 1:
        raise ValueError(f"figure.inpaint.mask={mask} is of one colour: nothing to fill in, or nothing to go by")
    return (levels / 255).to(context.device)


def _repainted(context: FigureContext, p: ReverseProcess, known: Event, mask: Tensor, resamplings: int) -> Event:
    draw = context.draw(INPAINTED)
    x_T, steps = context.noise(len(known), draw), len(context.sampler.steps(context.p.q))
    with Bar("inpaint", steps) as bar:
        *_, last = bar.watch(repaint(p, known, mask.expand(known.shape), context.sampler, x_T, draw, again=resamplings))
    return last.x_t


def _posterior(kind: Callable[[ReverseProcess, Measurement], ReverseProcess]) -> Fill:
    def filled(context: FigureContext, p: ReverseProcess, known: Event, mask: Tensor, resamplings: int) -> Event:
        draw = context.draw(INPAINTED)
        x_T, steps = context.noise(len(known), draw), len(context.sampler.steps(context.p.q))
        told = kind(p, Measurement(lambda x: mask * x, mask * known, STD))
        with Bar("inpaint", steps) as bar:
            *_, last = bar.watch(context.sampler(told, x_T, draw))
        return last.x_t

    return filled


METHODS: dict[str, Fill] = {"repaint": _repainted, "mmps": _posterior(MMPS), "dps": _posterior(DPS)}


def _real(context: FigureContext, images: list[int | str]) -> Event:
    where = "figure.inpaint.images"
    each = [from_split(context, i, where) if isinstance(i, int) else from_file(context, i, where) for i in images]
    return torch.stack(each)


def _check(
    context: FigureContext, *, images: list[int | str], mask: str, method: str, samples: int, resamplings: int
) -> None:
    _real(context, images)
    mask_of(context, mask)
    if context.conditioning.needs and not context.conditioning.drop:
        raise ValueError("figures=[inpaint]: this network was never trained without its condition (condition.drop=0)")
    if method not in METHODS:
        raise ValueError(f"figure.inpaint.method={method} is not one of {', '.join(METHODS)}")


@figure(data=True, check=_check)
def inpaint(
    context: FigureContext, *, images: list[int | str], mask: str, method: str, samples: int, resamplings: int
) -> Products:
    """Images, what is known of them, and several ways to fill in the rest: RePaint, MMPS or DPS."""
    real, known = _real(context, images), mask_of(context, mask)
    many = real.repeat_interleave(samples, 0)
    told = context.told([0] * len(many))
    made = METHODS[method](context, context.guided(told and told.dropped()), many, known, resamplings)
    rows = torch.cat([real[:, None], (known * real)[:, None], made.reshape(len(real), samples, *made.shape[1:])], 1)
    how = f", {resamplings} resamplings" if method == "repaint" else ""
    picture = drawing.labelled(
        context.show(rows.flatten(0, 1)),
        samples + 2,
        caption=context.caption(f"Real images, what is known of them, and samples of the rest ({method}{how})"),
        above=["real", "known", *[""] * (samples // 2), "filled in", *[""] * (samples - samples // 2 - 1)],
    )
    return (picture,)
