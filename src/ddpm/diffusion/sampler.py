"""Samplers: each yields the states of a chain from x_T to x_0, so that one loop serves images, films and previews."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, final

import torch

from ddpm.diffusion.gaussian import noise_like
from ddpm.diffusion.process import Batch, ForwardProcess, Time, expand
from ddpm.diffusion.reverse import Estimate, ReverseProcess
from ddpm.diffusion.timesteps import grid

_CURVES = {"uniform": 1, "quadratic": 2}  # t grows as i or as i^2


class State(NamedTuple):
    """The chain after a step."""

    t: int
    x_t: Batch
    x_0: Batch  # the estimate that the step was made with


class Visit(NamedTuple):
    """The chain before a step, what p_theta says about it, and the three visits before."""

    t: Time
    x_t: Batch
    estimate: Estimate
    before: "Visit | None" = None


def _alone(visit: Visit | None) -> Visit | None:
    return visit and visit._replace(before=None)  # or all of them would stay in memory


class Sampler(ABC):
    """A chain from T to 0 with `steps` evaluations of the network (None: T), at distinct times from T down to 1.

    "uniform" spacing is that of Nichol & Dhariwal 2021, t = 1 + round(i (T-1) / (steps-1)) for i < steps; "quadratic"
    squares the fraction, as Song et al. 2021 do for CIFAR-10. Every chain starts at T, where x_t ~ N(0, I). Raises
    ValueError for fewer than one step, or an unknown spacing.
    """

    def __init__(self, steps: int | None, spacing: str) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"steps={steps} must be at least 1")
        if spacing not in _CURVES:
            raise ValueError(f"spacing={spacing!r} is not one of {', '.join(_CURVES)}")
        self.num_steps, self.spacing = steps, spacing

    def steps(self, T: int) -> list[int]:
        """The times at which the network is evaluated, from T down. Raises ValueError for more than T steps."""
        n = T if self.num_steps is None else self.num_steps
        if n > T:
            raise ValueError(f"steps={n} exceeds T={T}: a sampler takes at most T steps")
        power = _CURVES[self.spacing]
        return grid(1, T, n, lambda u: u**power)[::-1]

    def steps_from(self, T: int, start: int | None) -> list[int]:
        """The times of a chain that begins at t = `start` (None: T): `start`, and those of `steps` below it."""
        return self.steps(T) if start is None else [start, *(t for t in self.steps(T) if t < start)]

    def num_evaluations(self, T: int) -> int:
        """How often the network is called for one sample."""
        return len(self.steps(T))

    def __call__(
        self,
        p: ReverseProcess,
        x_T: Batch,
        generator: torch.Generator,
        *,
        clip: bool = True,
        start: int | None = None,
        repeat_noise: bool = False,
    ) -> Iterator[State]:
        """Yields the state after every step, the last at t = 0; the noise depends on the generator and shape only.

        With `start`, `x_T` is x_t for t = `start`. `repeat_noise` draws one noise for all examples of the batch.
        """
        x_t, before = x_T, None
        for now, then in pairwise([*self.steps_from(p.q.T, start), 0]):
            with torch.no_grad():
                t, s = (torch.full((len(x_T),), time, device=x_T.device) for time in (now, then))
                here = self.arrive(p.q, Visit(t, x_t, p(x_t, t, s, clip=clip), before))
                noise = torch.zeros_like(x_t)  # Algorithm 2, line 3
                if then > 0:
                    noise = noise_like(x_t[:1] if repeat_noise else x_t, generator).expand_as(x_t)
                x_t = self.step(p.q, here, before, s, noise)
                before = here._replace(before=before and before._replace(before=_alone(before.before)))
            yield State(then, x_t, here.estimate.x_0)

    @property
    def label(self) -> str:
        """What captions call it: its name, and what else tells it from others of its kind."""
        return type(self).__name__

    def arrive(self, q: ForwardProcess, here: Visit) -> Visit:
        """This may correct x_t by the estimate that was made there; by default it changes nothing."""
        return here

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether x_0 is random given x_T."""

    @abstractmethod
    def step(self, q: ForwardProcess, here: Visit, before: Visit | None, s: Time, noise: Batch) -> Batch:
        """x_s, given the network's estimate `here` at t, the one `before` (None at first), and noise (0 for s = 0)."""


@final
class Ancestral(Sampler):
    """Ancestral sampling, x_s ~ p_theta(x_s | x_t); Algorithm 2."""

    def __init__(self, steps: int | None = None, spacing: str = "uniform") -> None:
        super().__init__(steps, spacing)

    @property
    def stochastic(self) -> bool:
        return True

    def step(self, q: ForwardProcess, here: Visit, before: Visit | None, s: Time, noise: Batch) -> Batch:
        return here.estimate.step.sample(noise)


@final
class DDIM(Sampler):
    """DDIM: x_s ~ q_sigma(x_s | x_t, x_0) at the x_0 estimate, sigma^2 = eta^2 beta~; Song et al. 2021, Eqs. 12, 16.

    epsilon is derived from the clipped x_0, so that eta = 1 over all T steps is `Ancestral` with fixed_small. The
    variance of p_theta plays no part.
    """

    def __init__(self, steps: int | None = 50, eta: float = 0.0, spacing: str = "uniform") -> None:
        super().__init__(steps, spacing)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta={eta} must lie in [0, 1]: 0 is deterministic, 1 ancestral")
        self.eta = eta

    @property
    def label(self) -> str:
        return f"DDIM η = {self.eta:g}"

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(self, q: ForwardProcess, here: Visit, before: Visit | None, s: Time, noise: Batch) -> Batch:
        return q.implicit_posterior(here.estimate.x_0, here.x_t, here.t, s, self.eta).sample(noise)


@final
class DPMSolver(Sampler):
    """DPM-Solver++(2M): DDIM's step at an x_0 extrapolated linearly in log SNR; Lu et al. 2022, Algorithm 2.

    The first and the last step are of first order. Quadratic spacing comes near the paper's, uniform in log SNR.
    """

    def __init__(self, steps: int | None = 20, spacing: str = "quadratic") -> None:
        super().__init__(steps, spacing)

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, q: ForwardProcess, here: Visit, before: Visit | None, s: Time, noise: Batch) -> Batch:
        x_0 = here.estimate.x_0
        if before is not None:
            h, h_before = (q.snr(s) / q.snr(here.t)).log(), (q.snr(here.t) / q.snr(before.t)).log()
            ratio = torch.where(h.isfinite(), h / h_before, 0)
            x_0 = x_0 + expand(ratio / 2, x_0) * (x_0 - before.estimate.x_0)
        return q.implicit_posterior(x_0, here.x_t, here.t, s, eta=0.0).mean
