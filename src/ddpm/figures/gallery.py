"""The figures by name, and the making of those that are asked for."""

from contextlib import AbstractContextManager
from pathlib import Path

import torch

from ddpm.figures import bound, chains, drawing, neighbours
from ddpm.figures.context import Figure, Scene, Settings
from ddpm.figures.interpolation import interpolation
from ddpm.messages import say

FIGURES: dict[str, Figure] = {
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


class Gallery:
    """The named figures of a scene. Building it fails where the request is wrong."""

    def __init__(self, scene: Scene, names: list[str], settings: Settings, precision: str = "32-true") -> None:
        self.scene, self.settings, self.precision = scene, settings, precision
        self.figures = [FIGURES[name] for name in dict.fromkeys(names)]
        if not scene.images.discrete and (wrong := [each.name for each in self.figures if not each.points]):
            fitting = ", ".join(name for name, each in FIGURES.items() if each.points)
            raise ValueError(
                f"figures: {', '.join(wrong)} shows images, and {scene.images.name} is points in the plane: "
                f"choose from {fitting}"
            )
        if precision not in ("32-true", "bf16-mixed"):
            raise ValueError(f"evaluation.precision={precision}: use 32-true or bf16-mixed")
        if any(each.data for each in self.figures):
            scene.images.prepare()
        for each in self.figures:
            each.check(scene, **settings[each.name])

    def draw(self, folder: Path, device: torch.device) -> None:
        """Make the figures, one after another, and say where they are."""
        self.scene.p.to(device)
        for each in self.figures:
            with torch.no_grad(), self._precision(device):
                products = each.make(self.scene, **self.settings[each.name])
            say(*map(str, drawing.write(folder, each.name, *products)))

    def _precision(self, device: torch.device) -> AbstractContextManager[None]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed")
