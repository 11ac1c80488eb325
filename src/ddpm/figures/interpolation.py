"""Between two real images, in the space of x_t; Figure 8."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.data.picture import PictureTransform
from ddpm.data.pixels import to_unit
from ddpm.figures import drawing
from ddpm.figures.context import DECODE, ENCODE, FigureContext, Products, figure


def ends(context: FigureContext, images: list[int | str]) -> Float[Tensor, "2 c h w"]:
    """The two images: examples of the split by index, or files.

    Raises:
        ValueError: there is no such example, or the file is no image of the model's size.
        OSError: a file that cannot be read.
    """
    where = "figure.interpolation.images"
    if len(images) != 2:
        raise ValueError(f"{where} must be two images, each the index of one in evaluation.split or a file")
    each = [from_split(context, i, where) if isinstance(i, int) else from_file(context, i, where) for i in images]
    return torch.stack(each)


def from_split(context: FigureContext, index: int, where: str) -> Float[Tensor, "c h w"]:
    """A real image by its number; `where` is the setting that names it.

    Raises:
        ValueError: there is none.
    """
    examples = context.images.split(context.split)
    if index >= len(examples):
        raise ValueError(f"{where}: the {context.split} split has images 0..{len(examples) - 1}, and no {index}")
    return context.read(examples, [index])[0]


def from_file(context: FigureContext, name: str, where: str) -> Float[Tensor, "c h w"]:
    """An image of the model's size in a file; `where` is the setting that names it.

    Raises:
        ValueError: it is none.
        OSError: it cannot be read.
    """
    path = Path(name).expanduser()
    channels, height, width = context.images.shape
    transform = PictureTransform(channels, height, width, background=(255, 255, 255))
    try:
        pixels = transform.exactly(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{where}: {path}: {error}") from error
    return to_unit(torch.tensor(pixels)).to(context.device)


def mixtures(context: FigureContext, pair: Float[Tensor, "2 c h w"], t: int, lambdas: int) -> Float[Tensor, "n c h w"]:
    """x_0 decoded from (1 - lambda) x_t + lambda x'_t for lambda = 0, ..., 1; Section 4.4.

    The two are encoded with independent noise; all lambdas share it, and share the noise of the decoding, so that only
    lambda changes along a row. lambda = 0 and 1 are the reconstructions.
    """
    x_t = context.p.q.diffuse(pair, context.at(t, 2), context.noise(2, context.draw(ENCODE, t)))
    weight = torch.linspace(0, 1, lambdas, device=context.device).reshape(-1, 1, 1, 1)
    mixed = (1 - weight) * x_t[:1] + weight * x_t[1:]
    told = context.told([0] * lambdas)
    nothing = told and told.dropped()  # a mixture is of neither class
    return context.decode(f"interpolation, t = {t}", mixed, context.draw(DECODE, t), nothing, t, repeat_noise=True)


def _check(context: FigureContext, *, images: list[int | str], t: list[int] | None, lambdas: int) -> None:
    ends(context, images)
    if context.conditioning.needs and not context.conditioning.drop:
        raise ValueError(
            "figures=[interpolation] mixes two images and tells the network nothing of the mixture, and this one was "
            "never trained without: it has condition.drop=0"
        )


@figure(data=True, check=_check)
def interpolation(context: FigureContext, *, images: list[int | str], t: list[int] | None, lambdas: int) -> Products:
    """Two images mixed after t steps of diffusion, a row for each t; Figures 8 and 9."""
    times = sorted(context.times(t, [k / 8 for k in range(1, 9)]), reverse=True)
    pair = ends(context, images)
    rows = [torch.cat([pair[:1], mixtures(context, pair, now, lambdas), pair[1:]]) for now in times]
    between = [f"{k / (lambdas - 1):.2g}" for k in range(1, lambdas - 1)]
    caption = context.caption(
        "Two real images (outer columns), mixed as (1 − λ) x_t + λ x'_t and decoded; rec. are λ = 0 and 1; "
        "the noise is shared along a row"
    )
    picture = drawing.labelled(
        context.show(torch.cat(rows)),
        lambdas + 2,
        caption=caption,
        above=["real", "rec.", *between, "rec.", "real"],
        beside=[f"t = {now}" for now in times],
        corner="λ",
    )
    return (picture,)
