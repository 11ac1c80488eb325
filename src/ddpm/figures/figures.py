"""The making of the figures that are asked for."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ddpm.figures import drawing
from ddpm.figures.context import FigureContext, FigureSettings, NamedFigure
from ddpm.hardware import autocast, check_precision
from ddpm.messages import say


class FigureSet:
    """The figures of a context that are asked for. Building it fails where the request is wrong.

    Args:
        known: every figure that there is, by name.
        names: those to make.
        settings: of each figure, by its name.
    """

    def __init__(
        self,
        context: FigureContext,
        known: Mapping[str, NamedFigure],
        names: list[str],
        settings: FigureSettings,
        precision: str = "32-true",
    ) -> None:
        self.context, self.settings, self.precision = context, settings, precision
        self.figures = {name: known[name] for name in dict.fromkeys(names)}
        if not context.images.kind.has_features and (
            wrong := [n for n, each in self.figures.items() if not each.points]
        ):
            fitting = ", ".join(name for name, each in known.items() if each.points)
            raise ValueError(
                f"figures: {', '.join(wrong)} shows images, and {context.images.name} is points in the plane: "
                f"choose from {fitting}"
            )
        check_precision(precision)
        if context.conditioning.needs or any(each.data for each in self.figures.values()):
            context.images.prepare()
        for name, each in self.figures.items():
            each.check(context, **settings[name])

    def draw(self, folder: Path, device: torch.device) -> None:
        """Make the figures, one after another, and say where they are."""
        self.context.p.to(device)
        for name, each in self.figures.items():
            with torch.no_grad(), autocast(device, self.precision):
                products = each.make(self.context, **self.settings[name])
            say(*map(str, drawing.write(folder, name, *products)))
