"""Samplers: each yields the states of a chain from x_T to x_0, so that one loop serves images, films and previews."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, final

import torch
from jaxtyping import Float64
from torch import Tensor

from ddpm.diffusion.gaussian import noise_like
from ddpm.diffusion.process import Batch, ForwardProcess, Time
from ddpm.diffusion.reverse import Estimate, ReverseProcess
from ddpm.diffusion.timesteps import grid

Times = Sequence[int]  # descending, from T

# How far t has come from 1 to T at the share u of the steps, for a schedule.
_CURVES: dict[str, Callable[[ForwardProcess], Callable[[float], float]]] = {
    "uniform": lambda q: lambda u: u,
    "quadratic": lambda q: lambda u: u**2,
    "log_snr": lambda q: partial(_where, -q.snr(torch.arange(1, q.T + 1)).log()),
    "karras": lambda q: partial(_where, q.snr(torch.arange(1, q.T + 1)) ** (-1 / (2 * 7))),
}
SPACINGS = tuple(_CURVES)


def _where(rising: Float64[Tensor, " T"], u: float) -> float:
    """The place among T values, from 0 to 1, of the one that is nearest to the share u of their range."""
    wish = rising[0] + u * (rising[-1] - rising[0])
    return int((rising - wish).abs().argmin()) / (len(rising) - 1)


class State(NamedTuple):
    """The chain after a step."""

    t: int
    x_t: Batch
    x_0: Batch  # the estimate that the step was made with


class Visit(NamedTuple):
    """The chain before a step, what p_theta says about it, and up to three visits before, for multistep samplers."""

    t: Time
    x_t: Batch
    estimate: Estimate
    before: "Visit | None" = None


def _latest(visit: Visit | None, more: int) -> Visit | None:
    """The visit with `more` of those before it: with all of them, the whole chain would stay in memory."""
    return visit and visit._replace(before=_latest(visit.before, more - 1) if more else None)


class Sampler(ABC):
    """A chain from T to 0 with `steps` evaluations of the network (None: T), at distinct times from T down to 1.

    "uniform" spacing is that of Nichol & Dhariwal 2021, t = 1 + round(i (T-1) / (steps-1)) for i < steps; "quadratic"
    squares the fraction, as Song et al. 2021 do for CIFAR-10; "log_snr" is uniform in log SNR, as in Lu et al. 2022;
    "karras" in sigma^(1/7), as in Karras et al. 2022. `times` are the times themselves. Every chain starts at T, where
    x_t ~ N(0, I). Raises ValueError for fewer steps than `fewest`, an unknown spacing, or times that do not descend.
    """

    def __init__(
        self, steps: int | None = None, spacing: str = "uniform", times: Times | None = None, *, fewest: int = 1
    ) -> None:
        if spacing not in _CURVES:
            raise ValueError(f"spacing={spacing!r} is not one of {', '.join(_CURVES)}")
        if times is not None and not (times and all(a > b for a, b in pairwise([*times, 0]))):
            raise ValueError(f"times={list(times)} must descend, from T to 1 or above")
        if times is not None and steps not in (None, len(times)):
            raise ValueError(f"steps={steps} are not the {len(times)} of times: use steps={len(times)}")
        n = steps if times is None else len(times)
        if n is not None and n < fewest:
            raise ValueError(f"steps={n} must be at least {fewest}" + (", for this order" if fewest > 1 else ""))
        self.num_steps, self.spacing = n, spacing if times is None else [*times]

    def nodes(self, q: ForwardProcess) -> list[int]:
        """The times of the grid, from T down. Raises ValueError for times that q has not."""
        n, spacing = q.T if self.num_steps is None else self.num_steps, self.spacing
        if not isinstance(spacing, str):
            if spacing[0] != q.T:
                raise ValueError(f"times begin at {spacing[0]}, and must at T={q.T}: they are those of another T")
            return spacing
        if n > q.T:
            raise ValueError(f"steps={n} exceeds T={q.T}: a sampler takes at most T steps")
        return grid(1, q.T, n, _CURVES[spacing](q))[::-1]

    def steps(self, q: ForwardProcess) -> list[int]:
        """The times at which the network is evaluated: those of the grid, unless the sampler does so more often."""
        return self.nodes(q)

    def steps_from(self, q: ForwardProcess, start: int | None) -> list[int]:
        """The times of a chain that begins at t = `start` (None: T): `start`, and those of `steps` below it."""
        return self.steps(q) if start is None else [start, *(t for t in self.steps(q) if t < start)]

    def num_evaluations(self, q: ForwardProcess) -> int:
        """How often the network is called for one sample."""
        return len(self.steps(q))

    def __call__(
        self,
        p: ReverseProcess,
        x_T: Batch,
        generator: torch.Generator,
        *,
        clip: bool = True,
        start: int | None = None,
        repeat_noise: bool = False,
        noise_of: Callable[[int, int], Batch] | None = None,
    ) -> Iterator[State]:
        """Yields the state after every step, the last at t = 0; the noise depends on the generator and shape only.

        With `start`, `x_T` is x_t for t = `start`. `repeat_noise` draws one noise for all examples of the batch;
        `noise_of(t, s)` gives that of a step in the generator's place.
        """
        x_t, before = x_T, None
        for now, then in pairwise([*self.steps_from(p.q, start), 0]):
            with torch.no_grad():
                t, s = (torch.full((len(x_T),), time, device=x_T.device) for time in (now, then))
                here = self.arrive(p.q, Visit(t, x_t, p(x_t, t, s, clip=clip), before))
                noise = torch.zeros_like(x_t)  # Algorithm 2, line 3
                if then > 0 and noise_of:
                    noise = noise_of(now, then)
                elif then > 0:
                    noise = noise_like(x_t[:1] if repeat_noise else x_t, generator).expand_as(x_t)
                x_t = self.step(p.q, here, s, noise)
                before = _latest(here, 2)
            yield State(then, x_t, here.estimate.x_0)

    @property
    def label(self) -> str:
        """What captions call it: its name, and what else tells it from others of its kind."""
        return type(self).__name__

    def arrive(self, q: ForwardProcess, here: Visit) -> Visit:
        """This may correct x_t by the estimate that was made there, or forget what was before; by default, neither."""
        return here

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether x_0 is random given x_T."""

    @abstractmethod
    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        """x_s, given the network's estimate `here` at t (earlier ones: `here.before`), and noise (0 for s = 0)."""


@final
class Ancestral(Sampler):
    """Ancestral sampling, x_s ~ p_theta(x_s | x_t); Algorithm 2."""

    @property
    def stochastic(self) -> bool:
        return True

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        return here.estimate.step.sample(noise)
