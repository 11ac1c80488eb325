"""Diagonal Gaussians, of which both q and p_theta are made."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """N(mean, diag(exp(log_var))), one for each example of a batch; where log_var is -inf it is the point `mean`."""

    mean: Float[Tensor, " b *event"]
    log_var: Float[Tensor, " b *#event"]

    def sample(self, noise: Float[Tensor, " b *event"]) -> Float[Tensor, " b *event"]:
        """A sample, mean + std * noise, for `noise` drawn from N(0, I)."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def kl(self, other: "Gaussian") -> Float[Tensor, " b *event"]:
        """KL(self || other) of every element, in nats."""
        log_ratio = self.log_var - other.log_var
        # expm1(d) - d keeps its digits where the variances nearly agree, as in L_T (4e-10 nats there).
        mismatch = torch.expm1(log_ratio) - log_ratio
        return 0.5 * (mismatch + (self.mean - other.mean).square() * torch.exp(-other.log_var))

    def log_prob(self, x: Float[Tensor, " b *event"]) -> Float[Tensor, " b *event"]:
        """Log density of every element, in nats."""
        z_squared = (x - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (z_squared + self.log_var + math.log(2 * math.pi))


def standard_normal(like: Float[Tensor, " b *event"]) -> Gaussian:
    """The prior p(x_T) = N(0, I) of the reverse process, in the shape, dtype and device of `like`."""
    return Gaussian(torch.zeros_like(like), torch.zeros_like(like))


def noise_like(x: Float[Tensor, " b *event"], generator: torch.Generator) -> Float[Tensor, " b *event"]:
    """A sample of N(0, I) in the shape of x, drawn where the generator lives: the same bits wherever x is."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return noise.to(x.device)
