"""The variational bound L = L_T + L_{T-1} + ... + L_0 of Eq. (5) and its parts, in nats summed over dimensions.

The rate is L_1 + ... + L_T and the distortion L_0, as in section 4.3.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.diffusion.gaussian import noise_like, standard_normal
from ddpm.diffusion.process import Batch, ForwardProcess, Time
from ddpm.diffusion.reverse import Estimate, ReverseProcess

PerExample = Float[Tensor, " b"]


def bound_term(p: ReverseProcess, estimate: Estimate, x_0: Batch, x_t: Batch, t: Time) -> PerExample:
    """L_{t-1} at x_t: KL(q(x_{t-1} | x_t, x_0) || p_theta(x_{t-1} | x_t)) for t > 1, -log p_theta(x_0 | x_1) for t = 1.

    `estimate` is the estimate of p at (x_t, t); t may differ between the examples.
    """
    kl = p.q.posterior(x_0, x_t, t).kl(estimate.step)  # infinite at t = 1, where its gradient is finite
    decoder = -p.decoder.log_prob(estimate.step, x_0)
    return torch.where(t > 1, kl.flatten(1).sum(1), decoder.flatten(1).sum(1))


def prior_term(q: ForwardProcess, x_0: Batch) -> PerExample:
    """L_T = KL(q(x_T | x_0) || N(0, I)), which no network takes part in."""
    return q.prior(x_0).kl(standard_normal(x_0)).flatten(1).sum(1)


def bits_per_dim(nats: Tensor, num_dims: int) -> Tensor:
    """Convert nats summed over `num_dims` dimensions into bits per dimension."""
    return nats / (num_dims * math.log(2))


class Term(NamedTuple):
    """One term of the bound for every example of a batch."""

    t: int
    nats: PerExample  # L_{t-1}
    squared_error: PerExample  # of the x_0 estimate, mean over dimensions


@dataclass(frozen=True)
class Bound:
    """Every part of the bound; column k belongs to L_k and to the x_0 estimate at t = k + 1."""

    prior: PerExample  # L_T
    terms: Float[Tensor, "b T"]  # L_0, ..., L_{T-1}
    squared_error: Float[Tensor, "b T"]  # of the x_0 estimate (clipped, where the bound is), mean over dimensions

    @classmethod
    def of(cls, prior: PerExample, terms: Iterable[Term]) -> "Bound":
        """The bound made of L_T and of terms in the order in which `bound_terms` yields them, t = T, ..., 1."""
        _, nats, squared_error = zip(*terms, strict=True)
        return cls(prior, torch.stack(nats[::-1], 1), torch.stack(squared_error[::-1], 1))

    @property
    def nats(self) -> PerExample:
        """L, the whole bound of each example."""
        return self.prior + self.terms.sum(1)

    @property
    def rate_nats(self) -> PerExample:
        """The rate L_1 + ... + L_T of each example; section 4.3."""
        return self.prior + self.terms[:, 1:].sum(1)

    @property
    def distortion_nats(self) -> PerExample:
        """The distortion L_0 of each example; section 4.3."""
        return self.terms[:, 0]

    def bits_per_dim(self, num_dims: int) -> PerExample:
        """L of each example in bits per dimension."""
        return bits_per_dim(self.nats, num_dims)

    def rate_distortion(self, num_dims: int) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
        """For t = 1..T: bits/dim to send x_T, ..., x_t, and the RMSE (0..255) of x_0 estimated from x_t; Table 4.

        Both are averages over examples; squared errors are averaged before the root is taken (the paper does not say).
        """
        sent = self.terms.flip(1).cumsum(1).flip(1) - self.terms + self.prior[:, None]  # L_T + ... + L_t
        return bits_per_dim(sent, num_dims).mean(0), 127.5 * self.squared_error.mean(0).sqrt()


def bound_terms(
    p: ReverseProcess, x_0: Batch, generator: torch.Generator, *, clip: bool = True, draws_of_x_1: int = 1
) -> Iterator[Term]:
    """Yield L_{T-1}, ..., L_0 one by one, each with a noise of its own, so that a caller can show progress.

    L_0 is the mean over `draws_of_x_1`, with an evaluation of the network for each: of all terms it depends most on the
    noise that is drawn.
    """
    for now in range(p.q.T, 0, -1):
        t = torch.full((len(x_0),), now, device=x_0.device)
        seen = [term(p, x_0, t, generator, clip=clip) for _ in range(draws_of_x_1 if now == 1 else 1)]
        nats, squared_error = (torch.stack([one[part] for one in seen]).mean(0) for part in (0, 1))
        yield Term(now, nats, squared_error)


def evaluate_bound(
    p: ReverseProcess, x_0: Batch, generator: torch.Generator, *, clip: bool = True, draws_of_x_1: int = 1
) -> Bound:
    """The bound with one sample of every other x_t: T evaluations of the network, and more for further draws of x_1."""
    return Bound.of(prior_term(p.q, x_0), bound_terms(p, x_0, generator, clip=clip, draws_of_x_1=draws_of_x_1))


class Seen(NamedTuple):
    """One term of the bound for every example, and the noise that made its x_t."""

    nats: PerExample
    squared_error: PerExample
    noise: Batch


@torch.no_grad()
def term(p: ReverseProcess, x_0: Batch, t: Time, generator: torch.Generator, *, clip: bool = True) -> Seen:
    """L_{t-1} at an x_t with fresh noise, from one evaluation of the network; t may differ between the examples."""
    noise = noise_like(x_0, generator)
    x_t = p.q.diffuse(x_0, t, noise)
    estimate: Estimate = p(x_t, t, clip=clip)
    return Seen(bound_term(p, estimate, x_0, x_t, t), (x_0 - estimate.x_0).square().flatten(1).mean(1), noise)
