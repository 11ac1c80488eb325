"""An unbiased estimate of the bound from a few evaluations of the network per example, stratified over t.

A pilot at a few random t per example fits what to expect of a term at each t: its level, its regression on the noise
that was drawn, and the scatter that these leave. The rest of the budget goes to t in proportion to the scatter
(Neyman's allocation) and measures the difference from what was expected, whose sum over t is known (control variates).
The expectation is fixed before the draws that count, so that the estimate has no bias however wrong the expectation is.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ddpm.diffusion.likelihood import PerExample, prior_term, term
from ddpm.diffusion.process import Batch
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.timesteps import grid
from ddpm.diffusion.wide import wide

HALVES = 2  # independent estimates for the same example: they tell the error of their mean
PILOT = 0.1  # share of the budget
FEWEST = 6  # 2 for the pilot; t = 1 and one other t for each half
BINS, IN_BIN = 24, 30  # the pilot's t are sorted into at most BINS bins, of IN_BIN visits or more each


class Visits(NamedTuple):
    """Terms of the bound at k times t for each example, with statistics of the noise that made their x_t."""

    t: Int64[Tensor, "b k"]
    nats: Float[Tensor, "b k"]  # L_{t-1}
    covariates: Float[Tensor, "b k 3"]
    squared_error: Float[Tensor, "b k"]  # of the x_0 estimate, mean over dimensions


@dataclass(frozen=True)
class Design:
    """How often to evaluate each t, and what to expect of its term; entry t - 1 belongs to t."""

    level: Float64[Tensor, " T"]  # the expected term, in nats
    slopes: Float64[Tensor, "T 3"]  # regression of a term on the covariates
    scatter: Float64[Tensor, " T"]  # standard deviation of the residuals, up to a common factor

    @classmethod
    def blind(cls, T: int) -> "Design":
        """The design without a pilot, which assumes only that the terms fall as 1/t."""
        zero = torch.zeros(T, dtype=torch.float64)
        scatter = 1 / torch.arange(1, T + 1, dtype=torch.float64)
        scatter[0] = 0  # one visit
        return cls(zero, zero[:, None].expand(T, 3), scatter)

    @classmethod
    def of(cls, pilot: Visits, T: int) -> "Design":
        """The design fitted to a pilot, at t = 1 and in bins of the other t; t L_{t-1} is alike within a bin."""
        t = pilot.t.flatten().cpu()
        scaled = pilot.nats.flatten().cpu().double() * t
        covariates = pilot.covariates.flatten(0, 1).cpu().double()
        rest = _regression(covariates[t > 1], scaled[t > 1])
        fitted = torch.empty(T, 5, dtype=torch.float64)
        for low, high in _bins_for(t, T):
            inside = (t >= low) & (t < high)
            enough = int(inside.sum()) >= IN_BIN
            fitted[low - 1 : high - 1] = _regression(covariates[inside], scaled[inside]) if enough else rest
        fitted /= torch.arange(1, T + 1)[:, None]
        level, slopes, scatter = fitted[:, 0], fitted[:, 1:4], fitted[:, 4]
        return cls(level, slopes, scatter.clamp(min=max(1e-3 * float(scatter.mean()), 1e-30)))  # no t is passed over

    def draw(
        self, n: int, visits: int, generator: torch.Generator
    ) -> tuple[Int64[Tensor, "n visits"], Float64[Tensor, "n visits"]]:
        """t and weight of every evaluation: some at t = 1, then one in each of equally probable slices of 2..T.

        Raises:
            ValueError: fewer than two evaluations.
        """
        if visits < 2:
            raise ValueError(f"{visits} evaluations leave terms of the bound out: use at least 2")
        first = round(visits * float(self.scatter[0] / self.scatter.sum()))
        first = min(max(1, first), visits - 1)
        slices = visits - first
        p = self.scatter[1:] / self.scatter[1:].sum()
        u = torch.rand(n, slices, generator=generator, device=generator.device, dtype=torch.float32).cpu().double()
        index = torch.searchsorted(p.cumsum(0), (torch.arange(slices) + u) / slices, right=True).clamp(max=len(p) - 1)
        t = torch.cat([torch.ones(n, first, dtype=torch.int64), index + 2], 1)
        return t, torch.cat([torch.full((n, first), 1 / first), 1 / (slices * p[index])], 1)


class Sketch(NamedTuple):
    """An estimate of L for each example, and the share that each evaluation contributes to it; L_T is the rest."""

    nats: PerExample
    t: Int64[Tensor, "b k"]
    shares: Float64[Tensor, "b k"]


class Outline(NamedTuple):
    """Estimates, from a pilot, of the bound's terms and of the squared error at every t; entry t - 1 belongs to t."""

    terms: Float64[Tensor, " T"]  # L_{t-1} in nats
    terms_stderr: Float64[Tensor, " T"]
    squared_error: Float64[Tensor, " T"]  # of the x_0 estimate, mean over dimensions

    @classmethod
    def of(cls, pilot: Visits, design: Design) -> "Outline":
        """Means within the design's bins: t L_{t-1} is constant in each, the squared error interpolated over log t."""
        T, t = len(design.level), pilot.t.flatten().cpu()
        squared_error = pilot.squared_error.flatten().cpu().double()
        counts, centers, means = torch.empty(T, dtype=torch.float64), [], []
        for low, high in _bins_for(t, T):
            inside = (t >= low) & (t < high)
            counts[low - 1 : high - 1] = max(1, int(inside.sum()))
            if inside.any():
                centers.append(t[inside].double().log().mean())
                means.append(squared_error[inside].mean())
        every = torch.arange(1, T + 1, dtype=torch.float64).log()
        drawn = _interpolated(every, torch.stack(centers), torch.stack(means))
        return cls(design.level, design.scatter / counts.sqrt(), drawn)


class BoundEstimates(NamedTuple):
    """Independent estimates for each example, without L_T; one column for each of the halves."""

    distortion_nats: Float[Tensor, "b halves"]  # L_0
    rate_nats: Float[Tensor, "b halves"]  # L_1 + ... + L_{T-1}


def visit(p: ReverseProcess, x_0: Batch, t: Int64[Tensor, "b k"], generator: torch.Generator) -> Visits:
    """One evaluation of the network for every entry of `t`; the x_0 estimate is clipped."""
    t = t.to(x_0.device)
    terms = [term(p, x_0, column, generator) for column in t.unbind(1)]
    covariates = [_covariates(x_0, one.noise) for one in terms]
    nats, squared_error = (torch.stack([one[part] for one in terms], 1) for part in (0, 1))
    return Visits(t, nats, torch.stack(covariates, 1), squared_error)


def explore(p: ReverseProcess, x_0: Batch, visits: int, generator: torch.Generator) -> Visits:
    """The pilot: evaluations at t = 1, and at others drawn with probability proportional to 1/t."""
    t, _ = Design.blind(p.q.T).draw(len(x_0), visits, generator)
    return visit(p, x_0, t, generator)


def estimate(p: ReverseProcess, x_0: Batch, design: Design, visits: int, generator: torch.Generator) -> BoundEstimates:
    """Two estimates of the bound, from `visits` evaluations of the network each."""
    distortion, rate, device = [], [], x_0.device
    for _ in range(HALVES):
        t, weight = design.draw(len(x_0), visits, generator)
        made = visit(p, x_0, t, generator)
        expected = wide(design.level[t - 1], device) + (wide(design.slopes[t - 1], device) * made.covariates).sum(2)
        surprise = wide(weight, device) * (made.nats - expected)
        distortion.append(float(design.level[0]) + (surprise * (made.t == 1)).sum(1))
        rate.append(float(design.level[1:].sum()) + (surprise * (made.t > 1)).sum(1))
    return BoundEstimates(torch.stack(distortion, 1), torch.stack(rate, 1))


def estimate_bound(p: ReverseProcess, x_0: Batch, generator: torch.Generator, num_timesteps: int) -> Sketch:
    """An estimate of L without a pilot; its t do not depend on the model, so that it can be followed while training."""
    design = Design.blind(p.q.T)
    t, weight = design.draw(len(x_0), num_timesteps, generator)
    shares = wide(weight, x_0.device) * visit(p, x_0, t, generator).nats
    return Sketch(prior_term(p.q, x_0) + shares.sum(1).to(x_0.dtype), t, shares)


def split_budget(evaluations: int) -> tuple[int, int]:
    """How many of the evaluations per example the pilot gets, and how many each half.

    Raises:
        ValueError: fewer than FEWEST.
    """
    if evaluations < FEWEST:
        raise ValueError(f"{evaluations} evaluations per image are too few for an estimate: use at least {FEWEST}")
    pilot = max(2, round(PILOT * evaluations))
    pilot += (evaluations - pilot) % HALVES
    return pilot, (evaluations - pilot) // HALVES


def _covariates(x_0: Batch, noise: Batch) -> Float[Tensor, "b 3"]:
    """Statistics of the noise that a term correlates with; each has mean 0 given x_0.

    They are its energy, everywhere and where x_0 is far from 0, and its component away from 0: it matters since the
    decoder's outermost bins are open.
    """
    excess = noise.square() - 1
    return torch.stack([part.flatten(1).mean(1) for part in (excess, excess * x_0.square(), noise * x_0)], 1)


def _bins_for(t: Int64[Tensor, " m"], T: int) -> list[tuple[int, int]]:
    """Bins of t, as many as there are visits to fill."""
    return _bins(T, min(BINS, int((t > 1).sum()) // IN_BIN))


def _bins(T: int, n: int) -> list[tuple[int, int]]:
    """Bins [low, high) of t: t = 1 alone, and up to n of 2..T that grow geometrically."""
    ratio = (T + 1) / 2
    edges = grid(2, T + 1, min(max(n, 1), T - 1) + 1, lambda u: (ratio**u - 1) / (ratio - 1))
    return [(1, 2), *pairwise(edges)]


def _interpolated(x: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Values at x, linear between the known points and constant beyond them."""
    right = torch.searchsorted(known, x).clamp(1, max(1, len(known) - 1))
    left, right = right - 1, right.clamp(max=len(known) - 1)
    span = (known[right] - known[left]).clamp(min=1e-12)
    return torch.lerp(values[left], values[right], ((x - known[left]) / span).clamp(0, 1))


def _regression(x: Float64[Tensor, "m 3"], y: Float64[Tensor, " m"]) -> Float64[Tensor, " 5"]:
    """Regression of y on x: intercept, slopes, standard deviation of the residuals; too few points have no slopes."""
    design = torch.cat([torch.ones_like(x[:, :1]), x * (len(y) >= IN_BIN)], 1)
    fitted = torch.linalg.lstsq(design, y[:, None], driver="gelsd").solution[:, 0]
    return torch.cat([fitted, (y - design @ fitted).std()[None] if len(y) > 1 else y.new_ones(1)])
