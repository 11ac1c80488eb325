"""What a network that is told an image makes of it: super-resolution, colourisation, pairs."""

import torch

from ddpm.figures import drawing
from ddpm.figures.context import RESTORED, FigureContext, Products, figure
from ddpm.figures.interpolation import from_split


def _check(context: FigureContext, *, images: list[int | str], samples: int) -> None:
    if context.conditioning.needs != "image":
        raise ValueError("figures=[restored]: this network is told no image; train it with condition=image")
    for index in images:
        if isinstance(index, str):
            raise ValueError(f"figure.restored.images: {index} is a file; use indices in evaluation.split")
        from_split(context, index, "figure.restored.images")


@figure(data=True, check=_check)
def restored(context: FigureContext, *, images: list[int], samples: int) -> Products:
    """Examples, what the network is told of each, and several samples of the rest."""
    examples = context.images.split(context.split)
    real = context.read(examples, images)
    condition = context.conditioning.of(examples, images)
    assert condition is not None
    told = condition.to(context.device)
    assert told.image is not None
    draw = context.draw(RESTORED)
    many = told.map(lambda part: part.repeat_interleave(samples, 0))
    made = context.decode("restored", context.noise(len(images) * samples, draw), draw, many)
    seen = told.image.expand(real.shape)  # a gray image has one channel
    rows = torch.cat([seen[:, None], made.reshape(len(images), samples, *made.shape[1:]), real[:, None]], 1)
    error = (context.show(made).float() - context.show(real).float().repeat_interleave(samples, 0)).square().mean()
    psnr = float(10 * torch.log10(255**2 / error))
    picture = drawing.labelled(
        context.show(rows.flatten(0, 1)),
        samples + 2,
        caption=context.caption(f"What the network is told, samples of the rest, the examples; PSNR {psnr:.1f} dB"),
        above=["told", *[""] * ((samples - 1) // 2), "samples", *[""] * (samples // 2), "real"],
    )
    return (picture,)
