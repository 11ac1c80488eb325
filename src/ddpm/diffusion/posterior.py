"""Sampling of x_0 given a measurement y = A x_0 + noise, A linear, from a process that was trained without it.

`MMPS` and `DPS` are reverse processes that correct the x_0 estimate, and any sampler walks them; `repaint` is a walk.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, final

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Gaussian, noise_like
from ddpm.diffusion.process import Batch, Time, expand
from ddpm.diffusion.reverse import Estimate, ReverseProcess
from ddpm.diffusion.sampler import Sampler, State, Visit


class Measurement(NamedTuple):
    """y = operator(x_0) + std * noise; the operator is linear, differentiable, and treats each example by itself."""

    operator: Callable[[Batch], Tensor]
    y: Tensor  # [b, ...]
    std: float  # positive; of a measurement without noise 1e-3, say


class Posterior(ReverseProcess, ABC):
    """p_theta(x_s | x_t, y): q's posterior at an estimate of x_0 that the measurement corrects, with p's variance."""

    def __init__(self, p: ReverseProcess, measurement: Measurement) -> None:
        super().__init__(p.network, p.q, p.prediction, p.variance, p.decoder)
        self.described_as(p)
        self.measurement = measurement

    @abstractmethod
    def correction(self, x_0: Batch, x_t: Batch, t: Time, s: Time) -> Batch:
        """What to add to the estimate `x_0`, which is differentiable with respect to x_t."""

    def forward(self, x_t: Batch, t: Time, s: Time | None = None, *, clip: bool = False) -> Estimate:
        s = t - 1 if s is None else s
        with torch.enable_grad():
            here = x_t.detach().requires_grad_()
            output, x_0, step = super().forward(here, t, s)
            x_0 = (x_0 + self.correction(x_0, here, t, s)).detach()
        x_0 = x_0.clamp(-1, 1) if clip else x_0
        return Estimate(output.detach(), x_0, Gaussian(self.q.posterior(x_0, x_t, t, s).mean, step.log_var.detach()))


@final
class MMPS(Posterior):
    """The mean of x_0 given x_t and y, from its mean and covariance V given x_t; Rozet et al. 2024, section 3.

    It is x_0 + V A^T (std^2 + A V A^T)^-1 (y - A x_0) with V = (1 - alpha_bar) / sqrt(alpha_bar) d x_0 / d x_t, exact
    for Gaussian data. Each of the `iterations` of conjugate gradients takes a gradient of the network.
    """

    def __init__(self, p: ReverseProcess, measurement: Measurement, iterations: int = 3) -> None:
        super().__init__(p, measurement)
        self.iterations = iterations

    def correction(self, x_0: Batch, x_t: Batch, t: Time, s: Time) -> Batch:
        (operator, y, std), start = self.measurement, x_0.detach().requires_grad_()
        seen, scale = operator(start), self.q.noise_scale(t, x_t) ** 2 / self.q.signal(t, x_t)

        def spread(v: Tensor) -> Batch:
            """V A^T v."""
            (back,) = torch.autograd.grad(seen, start, v, retain_graph=True)
            return scale * torch.autograd.grad(x_0, x_t, back, retain_graph=True)[0]

        return spread(_solved(lambda v: std**2 * v + operator(spread(v)), (y - seen).detach(), self.iterations))


@final
class DPS(Posterior):
    """x_s moves by `zeta` times the gradient of -|y - A x_0| with respect to x_t; Chung et al. 2023, Algorithm 1.

    They move x_s after the step; here x_0 moves by as much as has this effect in a step of ancestral sampling.
    """

    def __init__(self, p: ReverseProcess, measurement: Measurement, zeta: float = 1.0) -> None:
        super().__init__(p, measurement)
        self.zeta = zeta

    def correction(self, x_0: Batch, x_t: Batch, t: Time, s: Time) -> Batch:
        missed = (self.measurement.y - self.measurement.operator(x_0)).flatten(1).norm(dim=1)
        on_x_0, _ = self.q.posterior_weights(t, s, x_t)
        return -self.zeta * torch.autograd.grad(missed.sum(), x_t)[0] / on_x_0


def repaint(
    p: ReverseProcess, known: Batch, mask: Batch, sampler: Sampler, x_T: Batch, draw: torch.Generator, *, again: int
) -> Iterator[State]:
    """A sampler's walk in which `known` takes its place, where `mask` is 1, as a draw of q(x_s | x_0) in each state.

    Each step is taken `again` times, with x_s diffused back to x_t in between, so that the rest comes to fit what is
    known; Lugmayr et al. 2022, Algorithm 1, with jumps of one step. The sampler must not look back.
    """
    x_t = x_T
    for now, then in pairwise([*sorted({*sampler.steps(p.q)}, reverse=True), 0]):
        t, s = (torch.full((len(x_T),), time, device=x_T.device) for time in (now, then))
        with torch.no_grad():
            for left in reversed(range(again)):
                here = Visit(t, x_t, p(x_t, t, s, clip=True))
                noise, other = (noise_like(x_t, draw) * (then > 0) for _ in range(2))
                x_t = mask * p.q.diffuse(known, s, other) + (1 - mask) * sampler.step(p.q, here, s, noise)
                if left:
                    beta = p.q.beta(t, s)
                    x_t = expand((1 - beta).sqrt(), x_t) * x_t + expand(beta.sqrt(), x_t) * noise_like(x_t, draw)
        yield State(then, x_t, here.estimate.x_0)


def _solved(matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """The solution v of matrix(v) = right by conjugate gradients, for each example by itself."""

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1)).clamp(min=1e-30)

    v, left, direction = torch.zeros_like(right), right, right
    for _ in range(iterations):
        length, moved = dot(left, left), matrix(direction)
        step = length / dot(direction, moved)
        v, left = v + step * direction, left - step * moved
        direction = left + dot(left, left) / length * direction
    return v
