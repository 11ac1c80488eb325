"""The variational bound over a split: all T terms of it, or an unbiased estimate from a few evaluations per image."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ddpm.data.conditioning import Conditioning
from ddpm.data.dataset import Examples
from ddpm.data.pixels import unit
from ddpm.diffusion import budget
from ddpm.diffusion.likelihood import Bound, bound_terms, prior_term
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.evaluation.chunks import Chunk, Chunks
from ddpm.progress import Bar

BOUND, PILOT, ESTIMATE = 2, 3, 4  # what a chunk's generator is for


def draws_of_x_1(T: int) -> int:
    """How often the whole bound draws x_1, from which almost all of its own error comes: a hundredth of T more."""
    return 1 + T // 100


class Measured(NamedTuple):
    """A metric of results.json, and its curves over t; of an estimate as its pilot outlines them."""

    metric: dict[str, Any]
    curves: dict[str, list[float]]


class BoundOverSplit:
    """L of the first n examples of a split, in units of `scale` nats; each x_t is drawn once, x_1 more often.

    Args:
        evaluations: of the network per example, the pilot's included; None for all T terms.
        conditioning: what the network is told of each example.
        precision: entered around every evaluation of the network.
    """

    # As a metric of samples states them: `ddpm.metrics.metric.SampleMetric`.
    quantities: ClassVar[dict[str, dict[str, Any]]] = {
        "bits_per_dim": {
            "title": "bits/dim",
            "digits": 4,
            "better": "lower",
            "unit": "bits/dim",
            "error": "stderr",
            "error_is": "the standard error over images",
        },
        "bound_nats": {
            "title": "bound (nats)",
            "digits": 4,
            "better": "lower",
            "unit": "nats",
            "error": "stderr",
            "error_is": "the standard error over images",
        },
        "bits_per_dim_gap": {"title": "test less train", "digits": 4, "error": "stderr", "in_tables": False},
        "bound_nats_gap": {"title": "test less train", "digits": 4, "error": "stderr", "in_tables": False},
    }

    def __init__(
        self,
        p: ReverseProcess,
        examples: Examples,
        n: int,
        *,
        title: str,
        conditioning: Conditioning,
        chunks: Chunks,
        evaluations: int | None,
        precision: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.p, self.examples, self.n, self.title = p, examples, n, title
        self.conditioning = conditioning
        self.chunks, self.evaluations, self.precision = chunks, evaluations, precision

    def measure(self, scale: float, num_dims: int) -> Measured:
        steps = len(self.chunks.of(self.n)) * (self.evaluations or self.p.q.T)
        with Bar(f"bound on {self.title}", steps, enabled=self.chunks.rank.index == 0) as bar:
            if self.evaluations is None:
                return self._full(bar, scale, num_dims)
            return self._budgeted(bar, scale, num_dims, self.evaluations)

    def _full(self, bar: Bar, scale: float, num_dims: int) -> Measured:
        T = self.p.q.T
        terms_of = partial(bound_terms, draws_of_x_1=draws_of_x_1(T))

        def terms(chunk: Chunk) -> Tensor:
            (p, x_0), draw = self._given(chunk), self.chunks.generator(BOUND, chunk.k)
            with self.precision():
                part = Bound.of(prior_term(p.q, x_0), bar.watch(terms_of(p, x_0, draw)))
            return torch.cat([part.prior[:, None], part.terms, part.squared_error], 1)

        rows = self.chunks.rows(f"bound {self.title}", self.n, terms)
        bound = Bound(rows[:, 0], rows[:, 1 : T + 1], rows[:, T + 1 :])
        metric = self._metric(bound.nats, bound.prior, bound.rate_nats, bound.distortion_nats, scale)
        error = bound.terms.std(0) / math.sqrt(self.n) if self.n > 1 else torch.full_like(bound.terms[0], math.nan)
        return Measured(metric, self._curves(bound, error, scale, num_dims))

    def _budgeted(self, bar: Bar, scale: float, num_dims: int, evaluations: int) -> Measured:
        pilot, half = budget.split_budget(evaluations)

        def explored(chunk: Chunk) -> Tensor:
            with self.precision():
                visits = budget.explore(*self._given(chunk), pilot, self.chunks.generator(PILOT, chunk.k))
            bar.advance(pilot)
            single = torch.stack([visits.t.to(visits.nats), visits.nats, visits.squared_error], 2)
            return torch.cat([single, visits.covariates], 2).flatten(1)

        rows = self.chunks.rows(f"pilot {self.title}", self.n, explored).reshape(self.n, pilot, 6)
        visits = budget.Visits(rows[:, :, 0].long(), rows[:, :, 1], rows[:, :, 3:], rows[:, :, 2])
        design = budget.Design.of(visits, self.p.q.T)

        def estimated(chunk: Chunk) -> Tensor:
            (p, x_0), draw = self._given(chunk), self.chunks.generator(ESTIMATE, chunk.k)
            with self.precision():
                found = budget.estimate(p, x_0, design, half, draw)
            bar.advance(evaluations - pilot)
            prior = prior_term(p.q, x_0)[:, None]
            return torch.cat([prior, found.distortion_nats.to(prior), found.rate_nats.to(prior)], 1)

        rows = self.chunks.rows(f"estimate {self.title}", self.n, estimated)
        prior, distortion, rate = rows[:, 0], rows[:, 1:3], rows[:, 3:5]
        halves = distortion + rate
        nats = prior + halves.mean(1)
        metric = self._metric(nats, prior, prior + rate.mean(1), distortion.mean(1), scale)
        # The halves share nothing but the example: half their difference scatters as their mean does about the truth.
        own = float((halves[:, 0] - halves[:, 1]).square().mean().sqrt() / 2 / scale / math.sqrt(self.n))
        outline = budget.Outline.of(visits, design)
        bound = Bound(prior.mean()[None], outline.terms[None], outline.squared_error[None])
        curves = self._curves(bound, outline.terms_stderr, scale, num_dims)
        return Measured({**metric, "evaluations": evaluations, "stderr_of_estimate": own}, curves)

    def _curves(self, bound: Bound, stderr: Tensor, scale: float, num_dims: int) -> dict[str, list[float]]:
        rate, rmse = bound.rate_distortion(num_dims)
        return {
            "t": [float(t) for t in range(1, self.p.q.T + 1)],
            "term": (bound.terms.mean(0) / scale).tolist(),
            "term_stderr": (stderr / scale).tolist(),
            "rate_bits_per_dim": rate.tolist(),
            "rmse": rmse.tolist(),
        }

    def _metric(self, nats: Tensor, prior: Tensor, rate: Tensor, distortion: Tensor, scale: float) -> dict[str, Any]:
        return {
            "value": float(nats.mean() / scale),
            "stderr": float(nats.std() / scale / math.sqrt(self.n)) if self.n > 1 else math.nan,
            "n": self.n,
            "rate": float(rate.mean() / scale),
            "distortion": float(distortion.mean() / scale),
            "prior": float(prior.mean() / scale),
        }

    def _given(self, chunk: Chunk) -> tuple[ReverseProcess, Tensor]:
        """The process, told of the examples of a chunk what it was told in training, and the examples."""
        told = self.conditioning.of(self.examples, self.chunks.whole(chunk))
        given = self.p.given(told)
        return given, unit(self.chunks.examples(self.examples, chunk))
