"""Is it memorising? Samples beside the training images that are nearest to them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ddpm.data.dataset import Examples
from ddpm.data.pixels import to_unit
from ddpm.figures import drawing
from ddpm.figures.context import FigureContext, Products, figure
from ddpm.progress import Bar

Embed = Callable[[UInt8[Tensor, "n c h w"]], Float[Tensor, "n d"]]


class Nearest(NamedTuple):
    """By distance, ascending."""

    distance: Float[Tensor, "n k"]
    which: Int64[Tensor, "n k"]


def nearest(images: UInt8[Tensor, "n c h w"], examples: Examples, k: int, embed: Embed, chunk: int) -> Nearest:
    """Find the k nearest examples, or all where there are fewer, in the Euclidean distance of `embed`."""
    device, sought = images.device, embed(images)
    best = Nearest(sought.new_empty(len(images), 0), torch.empty(len(images), 0, dtype=torch.long, device=device))
    with Bar("nearest training images", len(examples)) as bar:
        for first in range(0, len(examples), chunk):
            indices = torch.arange(first, min(first + chunk, len(examples)))
            # The direct formula: a distance of 0 is 0.
            found = torch.cdist(
                sought,
                embed(examples.__getitems__(indices.tolist()).to(device)),
                compute_mode="donot_use_mm_for_euclid_dist",
            )
            distance = torch.cat([best.distance, found], 1)
            index = torch.cat([best.which, indices.to(device).expand(len(images), -1)], 1)
            smallest = distance.topk(min(k, distance.shape[1]), largest=False)
            best = Nearest(smallest.values, index.gather(1, smallest.indices))
            bar.advance(len(indices))
    return best


def embedding(context: FigureContext, space: str) -> Embed:
    if space == "pixels":
        return lambda images: to_unit(images).flatten(1)
    extractor = context.features().to(context.device)
    return lambda images: extractor(images).pool


def _check(context: FigureContext, *, count: int, neighbours: int, spaces: list[str]) -> None:
    if "features" in spaces:
        context.features()(torch.zeros(1, *context.images.shape, dtype=torch.uint8))


@figure(data=True, check=_check)
def nearest_neighbours(context: FigureContext, *, count: int, neighbours: int, spaces: list[str]) -> Products:
    """Samples and their nearest training images. Held-out images, as far from the training images, are the measure."""
    samples, train, test = context.samples(count), context.images.split("train"), context.images.split("test")
    held_out = test.__getitems__(list(range(min(len(test), max(100, count)))))
    columns, above, said = [samples], ["sample"], []
    for space in spaces:
        embed = embedding(context, space)
        images = torch.cat([samples, held_out]).to(context.device)
        found = nearest(images, train, neighbours, embed, context.chunk)
        which = found.which[:count].cpu().T
        columns += [torch.full_like(samples, drawing.GAP), *(train.__getitems__(rank.tolist()) for rank in which)]
        above += ["", space, *[""] * (len(which) - 1)]
        ours, theirs = found.distance[:count, 0].median(), found.distance[count:, 0].median()
        said.append(f"{space} {ours:.3g} (of {len(held_out)} test images {theirs:.3g})")
    caption = context.caption(
        f"Samples and their nearest training images in {' and in '.join(spaces)}; median distance of the {count} to "
        f"the nearest: {', '.join(said)}"
    )
    rows = torch.stack(columns, 1).flatten(0, 1)
    return (drawing.labelled(rows, len(columns), caption=caption, above=above),)
