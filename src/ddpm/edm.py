"""EDM on the schedule's own noise levels (Karras et al. 2022): preconditioning, density of noise levels, weighting.

EDM's y = x_0 + sigma noise is x_t / sqrt(alpha_bar_t) at sigma_t^2 = (1 - alpha_bar_t) / alpha_bar_t, exactly. Its
columns of Table 1 are written here in x_t. With v = sigma_data^2 alpha_bar_t + 1 - alpha_bar_t, the variance of x_t:

    c_skip y = sigma_data^2 sqrt(alpha_bar_t) / v x_t,
    c_out = sigma_data sqrt((1 - alpha_bar_t) / v),
    c_in y = x_t / sqrt(v).
"""

from typing import final

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ddpm.diffusion.objective import Weighting, x_0_error_per_error
from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import Batch, Coefficient, ForwardProcess, Time
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.timesteps import Timesteps


@final
class Preconditioned(Prediction):
    """The network predicts F in x_0 = c_skip y + c_out F(c_in y), whose input and target have variance 1; Eq. (7).

    Of the noise level it is told t, of which EDM's c_noise = log(sigma) / 4 is a function.

    Args:
        sigma_data: the standard deviation of the data.

    Raises:
        ValueError: it is not positive.
    """

    symbol = "F"

    def __init__(self, sigma_data: float = 0.5) -> None:
        self.sigma_data = _positive("sigma_data", sigma_data)

    def network_input(self, q: ForwardProcess, x_t: Batch, t: Time) -> Batch:
        return x_t / self._spread(q, x_t, t)

    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        left = q.noise_scale(t, x_0) / self.sigma_data * x_0 - self.sigma_data * q.signal(t, x_0) * noise
        return left / self._spread(q, x_0, t)

    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        spread = self._spread(q, x_t, t)
        skipped = self.sigma_data**2 * q.signal(t, x_t) / spread**2 * x_t
        return skipped + self.sigma_data * q.noise_scale(t, x_t) / spread * output

    def _spread(self, q: ForwardProcess, like: Batch, t: Time) -> Coefficient:
        """The standard deviation of x_t."""
        return ((self.sigma_data * q.signal(t, like)) ** 2 + q.noise_scale(t, like) ** 2).sqrt()


@final
class LogNormal(Timesteps):
    """log(sigma) is drawn from N(P_mean, P_std^2), and t is the one whose log(sigma_t) is nearest; EDM's Table 1.

    Nothing makes up for the density: a loss is averaged over these noise levels, as EDM's is. What lies beyond the
    schedule's noise levels goes to the first or the last t.

    Args:
        betas: the schedule.

    Raises:
        ValueError: P_std is not positive.
    """

    adaptive = False
    unbiased = False
    edges: Float[Tensor, " T-1"]  # between log(sigma_t) and log(sigma_{t + 1})

    def __init__(self, betas: Float64[Tensor, " T"], P_mean: float = -1.2, P_std: float = 1.2) -> None:
        super().__init__()
        self.P_mean, self.P_std = P_mean, _positive("P_std", P_std)
        log_sigma = -ForwardProcess(betas).snr(torch.arange(1, len(betas) + 1)).log() / 2
        self.register_buffer("edges", ((log_sigma[1:] + log_sigma[:-1]) / 2).float(), persistent=False)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        z = torch.randn(n, generator=generator, device=generator.device)
        t = torch.searchsorted(self.edges.to(z.device), self.P_mean + self.P_std * z) + 1
        return t, torch.ones_like(z)


@final
class Balanced(Weighting):
    """The loss is (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 times the squared error of x_0; EDM's Table 1.

    For `Preconditioned` with the same sigma_data the weight is 1.

    Raises:
        ValueError: sigma_data is not positive.
    """

    uniform = False

    def __init__(self, sigma_data: float = 0.5) -> None:
        self.sigma_data = _positive("sigma_data", sigma_data)

    def __call__(self, p: ReverseProcess, t: Time) -> Float64[Tensor, " b"]:
        return (p.q.snr(t) + self.sigma_data**-2) * x_0_error_per_error(p, t)


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be a positive number")
    return value
