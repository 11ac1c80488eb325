"""The figures by name, and the making of those that are asked for."""

from pathlib import Path

import torch

from ddpm.figures import bound, chains, drawing, neighbours
from ddpm.figures.context import FigureContext, FigureSettings, NamedFigure
from ddpm.figures.interpolation import interpolation
from ddpm.hardware import autocast, check_precision
from ddpm.messages import say

FIGURES: dict[str, NamedFigure] = {
    each.name: each
    for each in (
        chains.samples,
        chains.forward,
        chains.reverse,
        chains.progressive,
        chains.shared_latents,
        interpolation,
        bound.rate_distortion,
        bound.loss_by_t,
        neighbours.nearest_neighbours,
        chains.denoise,
        chains.film,
    )
}


class FigureSet:
    """The named figures of a context. Building it fails where the request is wrong."""

    def __init__(
        self, context: FigureContext, names: list[str], settings: FigureSettings, precision: str = "32-true"
    ) -> None:
        self.context, self.settings, self.precision = context, settings, precision
        self.figures = [FIGURES[name] for name in dict.fromkeys(names)]
        if not context.images.kind.has_features and (wrong := [each.name for each in self.figures if not each.points]):
            fitting = ", ".join(name for name, each in FIGURES.items() if each.points)
            raise ValueError(
                f"figures: {', '.join(wrong)} shows images, and {context.images.name} is points in the plane: "
                f"choose from {fitting}"
            )
        check_precision(precision)
        if any(each.data for each in self.figures):
            context.images.prepare()
        for each in self.figures:
            each.check(context, **settings[each.name])

    def draw(self, folder: Path, device: torch.device) -> None:
        """Make the figures, one after another, and say where they are."""
        self.context.p.to(device)
        for each in self.figures:
            with torch.no_grad(), autocast(device, self.precision):
                products = each.make(self.context, **self.settings[each.name])
            say(*map(str, drawing.write(folder, each.name, *products)))
