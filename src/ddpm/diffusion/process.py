"""The forward process q: everything that is known without a network.

Time is the paper's: t in {1, ..., T}, and t = 0 is the data. Tables have T + 1 entries, so that `table[t]` is the
paper's subscript t; entry 0 is the identity (alpha_bar[0] = 1), and no table of "previous" values is needed.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from ddpm.diffusion.gaussian import Gaussian
from ddpm.diffusion.wide import with_float64

Time = Int64[Tensor, " b"]
Batch = Float[Tensor, " b *event"]
Coefficient = Float[Tensor, " b *#event"]  # broadcast over an example's dimensions


class ForwardProcess(nn.Module):
    """q(x_t | x_0) and q(x_s | x_t, x_0) for the variance schedule beta_1, ..., beta_T; Eqs. (2), (4), (6), (7).

    Coefficients are combined in float64 and cast when they meet the data. In the methods, t and s hold one time for
    each example, and results have the shape of the data.

    Raises:
        ValueError: alpha_bar does not fall strictly from 1 and stay above 0, or there are fewer than two steps.
    """

    alpha_bar: Float64[Tensor, " T+1"]

    def __init__(self, betas: Float64[Tensor, " T"]) -> None:
        super().__init__()
        self.T = len(betas)
        alpha_bar = torch.cat([betas.new_ones(1), torch.cumprod(1 - betas, 0)])
        # Written so that a nan fails, too.
        if self.T < 2 or not bool((alpha_bar.diff() < 0).all() and alpha_bar[-1] > 0):
            raise ValueError(
                "alpha_bar must fall strictly from 1 and stay above 0 over at least two steps: "
                "use betas between 0 and 1 (both excluded), and fewer of them if they are large"
            )
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ForwardProcess":
        """Follows the module to a device that has float64 (else stays on the CPU), never to a narrower dtype."""
        device = fn(torch.empty(0, device=self.alpha_bar.device)).device
        self.alpha_bar = self.alpha_bar.to(with_float64(device))
        return self

    def signal(self, t: Time, like: Batch) -> Coefficient:
        """The coefficient of x_0 in x_t, sqrt(alpha_bar_t), to be broadcast over `like`."""
        return expand(self._at(t).sqrt(), like)

    def noise_scale(self, t: Time, like: Batch) -> Coefficient:
        """The coefficient of the noise in x_t, sqrt(1 - alpha_bar_t), to be broadcast over `like`."""
        return expand((1 - self._at(t)).sqrt(), like)

    def snr(self, t: Time) -> Float64[Tensor, " b"]:
        """The signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t); infinite at t = 0."""
        return self._at(t) / (1 - self._at(t))

    def beta(self, t: Time, s: Time) -> Float64[Tensor, " b"]:
        """Variance of q(x_t | x_s) for s < t: beta_t for s = t - 1."""
        return 1 - self._at(t) / self._at(s)

    def beta_tilde(self, t: Time, s: Time) -> Float64[Tensor, " b"]:
        """Variance of q(x_s | x_t, x_0) for s < t: Eq. (7) for s = t - 1; 0 for s = 0."""
        return (1 - self._at(s)) / (1 - self._at(t)) * self.beta(t, s)

    def diffuse(self, x_0: Batch, t: Time, noise: Batch) -> Batch:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, a sample of q(x_t | x_0); Eq. (4)."""
        return self.signal(t, x_0) * x_0 + self.noise_scale(t, x_0) * noise

    def prior(self, x_0: Batch) -> Gaussian:
        """q(x_T | x_0), the Gaussian that L_T compares with N(0, I); Eq. (4)."""
        t = torch.full((len(x_0),), self.T, device=x_0.device)
        return Gaussian(self.signal(t, x_0) * x_0, expand((1 - self._at(t)).log(), x_0))

    def posterior(self, x_0: Batch, x_t: Batch, t: Time, s: Time | None = None) -> Gaussian:
        """q(x_s | x_t, x_0) for s < t; Eqs. (6)-(7) for the default, s = t - 1. For s = 0 it is the point x_0."""
        s = t - 1 if s is None else s
        on_x_0, on_x_t = self.posterior_weights(t, s, x_t)
        return Gaussian(on_x_0 * x_0 + on_x_t * x_t, expand(self.beta_tilde(t, s).log(), x_t))

    def posterior_weights(self, t: Time, s: Time, like: Batch) -> tuple[Coefficient, Coefficient]:
        """The weights of x_0 and x_t in the posterior mean; Eq. (7) for s = t - 1."""
        a_t, a_s = self._at(t), self._at(s)
        on_x_0 = a_s.sqrt() * self.beta(t, s) / (1 - a_t)
        on_x_t = (a_t / a_s).sqrt() * (1 - a_s) / (1 - a_t)
        return expand(on_x_0, like), expand(on_x_t, like)

    def implicit_posterior(self, x_0: Batch, x_t: Batch, t: Time, s: Time, eta: float) -> Gaussian:
        """q_sigma(x_s | x_t, x_0) of DDIM with sigma^2 = eta^2 beta~; Song et al. 2021, Eq. (7).

        It is the posterior for eta = 1 and a point for eta = 0.
        """
        a_t, a_s, variance = self._at(t), self._at(s), eta**2 * self.beta_tilde(t, s)
        on_x_t = ((1 - a_s - variance).clamp(min=0) / (1 - a_t)).sqrt()
        on_x_0 = a_s.sqrt() - on_x_t * a_t.sqrt()
        mean = expand(on_x_0, x_t) * x_0 + expand(on_x_t, x_t) * x_t
        return Gaussian(mean, expand(variance.log(), x_t))

    def _at(self, t: Time) -> Float64[Tensor, " b"]:
        return self.alpha_bar.index_select(0, t.to(self.alpha_bar.device))  # quicker than [t]


def expand(value: Float64[Tensor, " b"], like: Batch) -> Coefficient:
    """One number per example, cast to the dtype and device of `like` and shaped to broadcast over it."""
    return value.to(like.dtype).to(like.device).reshape(-1, *[1] * (like.ndim - 1))
