"""How examples are drawn: images pixel by pixel, points as scatter plots. Nothing else tells the two apart here."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Shaped
from PIL.Image import Image
from torch import Tensor

from ddpm.data.dataset import Dataset, Examples, readable
from ddpm.data.kind import IMAGES, POINTS
from ddpm.data.pixels import to_uint8
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.figures import drawing, plane
from ddpm.figures.plane import Told

GRID_SIDE = 8
CHAINS, STATES = 6, 13  # of the grid's samples, and estimates of each
FILM = 400  # pixels
CLOUD = 2000  # points of a contact sheet
WIDE_PANELS = [(1 - i / 5) ** 2 for i in range(6)]  # fractions of T

Between = Callable[[], None]


class Display(ABC):
    """Draws examples of one kind, and states of the two processes."""

    @abstractmethod
    def shown(self, count: int, points: int) -> int:
        """How many examples a figure shows, of its own count and of the setting figure.points."""

    @abstractmethod
    def fractions(self, wished: Sequence[float]) -> Sequence[float]:
        """The fractions of T at which a chain is shown, of those that suit a row of small images."""

    @abstractmethod
    def samples(self, made: Shaped[Tensor, "n *event"], caption: str) -> drawing.Product:
        """A picture of samples."""

    @abstractmethod
    def panels(
        self, states: Sequence[Shaped[Tensor, "n *event"]], times: Sequence[int], caption: str
    ) -> drawing.Product:
        """States of a few examples at these t, from left to right."""

    @abstractmethod
    def frame(self, x: Shaped[Tensor, "n *event"], title: str) -> Image:
        """One frame of a film."""

    @abstractmethod
    def sheet(self, examples: Examples) -> Image:
        """Some of the examples, spread over all of them."""

    @abstractmethod
    def during_training(
        self, p: ReverseProcess, sampler: Sampler, noise: torch.Generator, between: Between, data: Dataset, told: Told
    ) -> Mapping[str, Image]:
        """The pictures of a step of training, by name.

        Args:
            between: called after every step of the sampler.
            told: what p is told of so many samples.
        """

    @abstractmethod
    def of_process(
        self, p: ReverseProcess, sampler: Sampler, draw: torch.Generator, data: Dataset, told: Told
    ) -> Mapping[str, Image]:
        """What an evaluation shows beside samples, by name."""


@final
class ImageDisplay(Display):
    def shown(self, count: int, points: int) -> int:
        return count

    def fractions(self, wished: Sequence[float]) -> Sequence[float]:
        return wished

    def samples(self, made: Shaped[Tensor, "n *event"], caption: str) -> drawing.Product:
        return drawing.labelled(made, columns(len(made)), caption=caption)

    def panels(
        self, states: Sequence[Shaped[Tensor, "n *event"]], times: Sequence[int], caption: str
    ) -> drawing.Product:
        rows = torch.stack(list(states), 1).flatten(0, 1)  # a row for each image
        return drawing.labelled(rows, len(states), caption=caption, above=[*map(str, times)], corner="t")

    def frame(self, x: Shaped[Tensor, "n *event"], title: str) -> Image:
        return drawing.labelled(x, columns(len(x)), caption=title, width=FILM)

    def sheet(self, examples: Examples) -> Image:
        return drawing.grid(examples.__getitems__(readable(examples, GRID_SIDE**2)).cpu(), GRID_SIDE)

    def during_training(
        self, p: ReverseProcess, sampler: Sampler, noise: torch.Generator, between: Between, data: Dataset, told: Told
    ) -> Mapping[str, Image]:
        """`samples` in rows, and `progressive`: x_0 estimates along the chains of the first few (Figure 6)."""
        p = p.given(told(GRID_SIDE**2))
        x_T = torch.randn((GRID_SIDE**2, *data.shape), generator=noise, device=noise.device)
        last = sampler.num_evaluations(p.q) - 1
        shown = {round(i * last / (STATES - 1)) for i in range(STATES)}
        estimates = []
        for k, state in enumerate(sampler(p, x_T, noise)):
            if k in shown:
                estimates.append(to_uint8(state.x_0[:CHAINS]).cpu())
            between()
        return {"samples": drawing.grid(to_uint8(state.x_t).cpu(), GRID_SIDE), "progressive": drawing.strip(estimates)}

    def of_process(
        self, p: ReverseProcess, sampler: Sampler, draw: torch.Generator, data: Dataset, told: Told
    ) -> Mapping[str, Image]:
        return {}


@final
class PointDisplay(Display):
    def shown(self, count: int, points: int) -> int:
        return points

    def fractions(self, wished: Sequence[float]) -> Sequence[float]:
        return WIDE_PANELS

    def samples(self, made: Shaped[Tensor, "n *event"], caption: str) -> drawing.Product:
        return drawing.scatters([made], [f"{len(made):,} samples"], caption)

    def panels(
        self, states: Sequence[Shaped[Tensor, "n *event"]], times: Sequence[int], caption: str
    ) -> drawing.Product:
        return drawing.scatters(states, [f"t = {t}" for t in times], caption)

    def frame(self, x: Shaped[Tensor, "n *event"], title: str) -> Image:
        return drawing.drawn(drawing.scatters([x], [title], ""), round(FILM / drawing.COLUMN))

    def sheet(self, examples: Examples) -> Image:
        shown = examples.__getitems__(readable(examples, CLOUD)).cpu()
        return self.frame(shown, f"{len(shown):,} of {len(examples):,} examples")

    def during_training(
        self, p: ReverseProcess, sampler: Sampler, noise: torch.Generator, between: Between, data: Dataset, told: Told
    ) -> Mapping[str, Image]:
        return {"samples": plane.picture(p, sampler, noise, between, examples=data.split("train"), told=told)}

    def of_process(
        self, p: ReverseProcess, sampler: Sampler, draw: torch.Generator, data: Dataset, told: Told
    ) -> Mapping[str, Image]:
        return {"process": plane.picture(p, sampler, draw, examples=data.split("train"), told=told)}


_DISPLAYS: dict[str, Display] = {IMAGES.name: ImageDisplay(), POINTS.name: PointDisplay()}


def display_of(data: Dataset) -> Display:
    """What draws the examples of a dataset."""
    return _DISPLAYS[data.kind.name]


def columns(n: int) -> int:
    """Columns of a grid of n images: without holes if it can then be nearly square, rather wide than high."""
    even = max(c for c in range(1, n + 1) if n % c == 0 and c * c <= 2 * n) if n > 3 else n
    return even if 2 * even * even >= n else round((1.5 * n) ** 0.5)
