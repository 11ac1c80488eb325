"""What every figure is made from, and what a figure is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ddpm.data.conditioning import Conditioning, OfSamples
from ddpm.data.dataset import Dataset, Examples, Split
from ddpm.data.pixels import unit
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler, State
from ddpm.figures import drawing
from ddpm.figures.display import Display, display_of
from ddpm.metrics.features import FeatureExtractor
from ddpm.progress import Bar
from ddpm.randomness import generator

# What a generator is for.
CHAIN, FORWARD, LATENT, ENCODE, DECODE, BOUND, NOISED, GUIDED, INPAINTED, RESTORED = range(1, 11)

Event = Float[Tensor, "n *event"]
Products: TypeAlias = tuple[drawing.Product, ...]
FigureSettings: TypeAlias = dict[str, dict[str, Any]]  # of each figure


@dataclass(eq=False)
class FigureContext:
    """A reverse process, the data that it learned, and the way to sample from it.

    Attributes:
        conditioning: what p is told of each example.
        guidance: of all that is sampled.
        split: where real examples come from.
        features: made on demand, since few figures need them.
        points: how many are shown of data that are points in the plane, in the place of each figure's count.
        chunk: how many samples are drawn together, at most.
        about: what the captions say of the model.
    """

    p: ReverseProcess
    images: Dataset
    conditioning: Conditioning
    sampler: Sampler
    guidance: Guidance
    features: Callable[[], FeatureExtractor]
    split: Split
    points: int
    chunk: int
    seed: int
    about: Sequence[str]

    @property
    def display(self) -> Display:
        return display_of(self.images)

    @property
    def T(self) -> int:
        return self.p.q.T

    @property
    def device(self) -> torch.device:
        return next(self.p.parameters()).device

    def draw(self, *what: int) -> torch.Generator:
        return generator(self.device, self.seed, *what)

    def noise(self, count: int, draw: torch.Generator) -> Event:
        return torch.randn((count, *self.images.shape), generator=draw, device=self.device)

    def at(self, t: int, count: int) -> Tensor:
        return torch.full((count,), t, device=self.device)

    def shown(self, count: int) -> int:
        """How many examples are shown where a figure asks for `count`."""
        return self.display.shown(count, self.points)

    def real(self, count: int) -> Event:
        """The first real examples."""
        examples = self.images.split(self.split)
        return self.read(examples, range(min(count, len(examples))))

    def given_real(self, count: int) -> ReverseProcess:
        """The process, told what the first real examples are."""
        examples = self.images.split(self.split)
        told = self.conditioning.of(examples, range(min(count, len(examples))))
        return self.p.given(told)

    def guided(self, told: Condition | None) -> ReverseProcess:
        """The process that is sampled from, told this."""
        return self.guidance(self.p).to(self.device).given(told)

    def told(self, indices: Sequence[int]) -> Condition | None:
        """What samples are told: what is told of real examples, in an order drawn from the seed."""
        return OfSamples(self.conditioning, self.images, self.split, self.seed)(indices)

    def read(self, examples: Examples, indices: Sequence[int]) -> Event:
        return unit(examples.__getitems__(list(indices)).to(self.device))

    def times(self, wanted: Sequence[int] | None, fractions: Sequence[float]) -> list[int]:
        """The t that are wanted; by default, fractions of T."""
        return list(wanted or dict.fromkeys(max(1, round(fraction * self.T)) for fraction in fractions))

    def visited(self, wanted: Sequence[int]) -> list[int]:
        """The nearest t that the sampler visits, descending."""
        there = self.sampler.steps(self.p.q)
        return sorted({min(there, key=lambda t, near=near: abs(t - near)) for near in wanted}, reverse=True)  # type: ignore[misc]

    def walk(
        self,
        title: str,
        x_t: Event,
        draw: torch.Generator,
        told: Condition | None,
        start: int | None = None,
        *,
        repeat_noise: bool = False,
    ) -> Iterator[State]:
        """The sampler's states below x_t, while a bar moves."""
        with Bar(title, len(self.sampler.steps_from(self.p.q, start))) as bar:
            yield from bar.watch(self.sampler(self.guided(told), x_t, draw, start=start, repeat_noise=repeat_noise))

    def decode(
        self,
        title: str,
        x_t: Event,
        draw: torch.Generator,
        told: Condition | None,
        start: int | None = None,
        *,
        repeat_noise: bool = False,
    ) -> Event:
        """x_0 at the end of the walk."""
        *_, last = self.walk(title, x_t, draw, told, start, repeat_noise=repeat_noise)
        return last.x_t

    def samples(self, count: int, labels: Sequence[int] | None = None) -> Shaped[Tensor, "n *event"]:
        """Samples as the data is: bytes of images, or points. Chunk k has a generator of its own.

        Args:
            labels: a class for each, in the place of the data's own.
        """
        made = []
        for k in range(-(-count // self.chunk)):
            draw, size = self.draw(CHAIN, k), min(self.chunk, count - k * self.chunk)
            mine = range(k * self.chunk, k * self.chunk + size)
            told = self.told(mine) if labels is None else self.conditioning.wanted([labels[i] for i in mine])
            made.append(self.show(self.decode("samples", self.noise(size, draw), draw, told)))
        return torch.cat(made)

    def chain(self, title: str, count: int) -> Iterator[tuple[int, State]]:
        """States with the t of the estimate they hold; the first is x_T itself, without one."""
        draw = self.draw(CHAIN, 0)
        x_T = self.noise(count, draw)
        yield 0, State(self.T, x_T, x_T)
        yield from zip(self.sampler.steps(self.p.q), self.walk(title, x_T, draw, self.told(range(count))), strict=True)

    def show(self, x: Event) -> Shaped[Tensor, "n *event"]:
        """Samples as the data is, on the CPU."""
        return self.images.kind.stored(x).cpu()

    def caption(self, what: str, *, sampled: bool = True) -> str:
        """What was done, to which model, with which settings."""
        how = [*self.about, f"T = {self.T}"]
        if sampled:
            how += [self.sampler.label, f"{self.sampler.num_evaluations(self.p.q)} steps"]
        whole = (part.replace(" ", "\u00a0") for part in (*how, f"seed {self.seed}"))  # lines break between, not within
        return f"{what}. {'; '.join(whole)}."

    def panels(self, states: Sequence[Shaped[Tensor, "n *event"]], times: Sequence[int], caption: str) -> Products:
        """The states of a few examples, from left to right: a row for each image, or a panel for each cloud."""
        return (self.display.panels(states, times, caption),)


@dataclass(frozen=True)
class NamedFigure:
    """What conf/figure/NAME.yaml names: `make(context, **settings)`, whose settings stand in that file.

    Attributes:
        points: it makes sense for points in the plane.
        data: it shows real examples.
        check: raises ValueError where the settings do not go with the context, before anything is computed.
    """

    make: Callable[..., Products]
    points: bool
    data: bool
    check: Callable[..., None]


def figure(
    *, points: bool = False, data: bool = False, check: Callable[..., None] = lambda context, **settings: None
) -> Callable[[Callable[..., Products]], NamedFigure]:
    """Makes a figure of a function."""
    return lambda make: NamedFigure(make, points, data, check)
