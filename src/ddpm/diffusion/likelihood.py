"""The variational bound L = L_T + L_{T-1} + ... + L_0 of Eq. (5) and its parts, in nats summed over dimensions."""

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


def bound_term(p: ReverseProcess, seen: Estimate, x_0: Batch, x_t: Batch, t: Time) -> PerExample:
    """L_{t-1}: KL(q(x_{t-1} | x_t, x_0) || p_theta(x_{t-1} | x_t)) for t > 1, -log p_theta(x_0 | x_1) for t = 1."""
    # The branch that is not taken must be finite, or its gradient would be 0 * inf: hence the clamp.
    kl = p.q.posterior(x_0, x_t, t.clamp(min=2)).kl(seen.step)
    decoder = -p.decoder.log_prob(seen.step, x_0)
    return torch.where(t > 1, kl.flatten(1).sum(1), decoder.flatten(1).sum(1))


def prior_term(q: ForwardProcess, x_0: Batch) -> PerExample:
    """L_T = KL(q(x_T | x_0) || N(0, I))."""
    return q.prior(x_0).kl(standard_normal(x_0)).flatten(1).sum(1)


def bits_per_dim(nats: Tensor, num_dims: int) -> Tensor:
    """Nats over all dimensions as bits per dimension."""
    return nats / (num_dims * math.log(2))


class Term(NamedTuple):
    t: int
    nats: PerExample  # L_{t-1}
    squared_error: PerExample


@dataclass(frozen=True)
class Bound:
    """Every part of the bound; column k belongs to L_k and to the x_0 estimate at t = k + 1."""

    prior: PerExample  # L_T
    terms: Float[Tensor, "b T"]  # L_0, ..., L_{T-1}
    squared_error: Float[Tensor, "b T"]  # of the x_0 estimate (clipped, where the bound is), mean over dimensions

    @classmethod
    def of(cls, prior: PerExample, terms: Iterable[Term]) -> "Bound":
        """Terms as `bound_terms` yields them: t = T, ..., 1."""
        _, nats, squared_error = zip(*terms, strict=True)
        return cls(prior, torch.stack(nats[::-1], 1), torch.stack(squared_error[::-1], 1))

    @property
    def nats(self) -> PerExample:
        """L."""
        return self.prior + self.terms.sum(1)

    @property
    def rate_nats(self) -> PerExample:
        """L_1 + ... + L_T; section 4.3."""
        return self.prior + self.terms[:, 1:].sum(1)

    @property
    def distortion_nats(self) -> PerExample:
        """L_0; section 4.3."""
        return self.terms[:, 0]

    def bits_per_dim(self, num_dims: int) -> PerExample:
        """L in bits per dimension."""
        return bits_per_dim(self.nats, num_dims)

    def rate_distortion(self, num_dims: int) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
        """For t = 1..T: bits/dim to send x_T, ..., x_t, and the RMSE (0..255) of x_0 estimated from x_t; Table 4.

        Averaged over examples, squared errors before the root (the paper does not say).
        """
        sent = self.terms.flip(1).cumsum(1).flip(1) - self.terms + self.prior[:, None]  # L_T + ... + L_t
        return bits_per_dim(sent, num_dims).mean(0), 127.5 * self.squared_error.mean(0).sqrt()


def bound_terms(p: ReverseProcess, x_0: Batch, generator: torch.Generator, *, clip: bool = True) -> Iterator[Term]:
    """L_{T-1}, ..., L_0 one by one, each with a noise of its own, so that a caller can show progress."""
    for now in range(p.q.T, 0, -1):
        t = torch.full((len(x_0),), now, device=x_0.device)
        nats, squared_error, _ = term(p, x_0, t, generator, clip=clip)
        yield Term(now, nats, squared_error)


def evaluate_bound(p: ReverseProcess, x_0: Batch, generator: torch.Generator, *, clip: bool = True) -> Bound:
    """The bound with one sample of every x_t: T evaluations of the network."""
    return Bound.of(prior_term(p.q, x_0), bound_terms(p, x_0, generator, clip=clip))


class Seen(NamedTuple):
    """One term of the bound, and what it was made from."""

    nats: PerExample
    squared_error: PerExample
    noise: Batch


@torch.no_grad()
def term(p: ReverseProcess, x_0: Batch, t: Time, generator: torch.Generator, *, clip: bool = True) -> Seen:
    """L_{t-1} with a fresh noise: one evaluation of the network."""
    noise = noise_like(x_0, generator)
    x_t = p.q.diffuse(x_0, t, noise)
    seen: Estimate = p(x_t, t, clip=clip)
    return Seen(bound_term(p, seen, x_0, x_t, t), (x_0 - seen.x_0).square().flatten(1).mean(1), noise)
