"""The best network for x_0 ~ N(mean, std^2 I), in closed form: what it should sample, and its bound, are known."""

import torch
from torch import Tensor, nn

from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import ForwardProcess, expand
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.variance import FixedSmall, Learned, LearnedRange, Variance


class OptimalNetwork(nn.Module):
    """E[target | x_t], and log Var[x_{t-1} | x_t] in the space of a learned variance."""

    def __init__(self, q: ForwardProcess, prediction: Prediction, variance: Variance, mean: float, std: float) -> None:
        super().__init__()
        self.q, self.prediction, self.variance, self.mean, self.std = q, prediction, variance, mean, std

    def forward(self, x: Tensor, t_from_0: Tensor) -> Tensor:
        t = t_from_0 + 1
        signal, noise_scale = self.q.signal(t, x), self.q.noise_scale(t, x)
        x_0 = self.mean + signal * self.std**2 / (signal**2 * self.std**2 + noise_scale**2) * (x - signal * self.mean)
        output = self.prediction.target(self.q, x_0, (x - signal * x_0) / noise_scale, t)
        return torch.cat([output, self._raw(x, t)], 1) if self.variance.learned else output

    def _raw(self, x: Tensor, t: Tensor) -> Tensor:
        log_var = expand(optimal_log_var(self.q, self.std, t, t - 1), x).expand(x.shape)
        if isinstance(self.variance, Learned):
            return log_var
        assert isinstance(self.variance, LearnedRange)
        low = FixedSmall().log_var(self.q, None, x, t, t - 1)
        width = expand(self.q.beta(t, t - 1).log(), x) - low
        return 2 * (log_var - low) / width - 1


def optimal_log_var(q: ForwardProcess, std: float, t: Tensor, s: Tensor) -> Tensor:
    """log Var[x_s | x_t] = log(beta~ + (weight of x_0 in the posterior mean)^2 Var[x_0 | x_t])."""
    a = q.alpha_bar[t]
    x_0_var = std**2 * (1 - a) / (a * std**2 + 1 - a)
    on_x_0, _ = q.posterior_weights(t, s, a)
    return (q.beta_tilde(t, s) + on_x_0**2 * x_0_var).log()


def optimal(
    q: ForwardProcess, prediction: Prediction, variance: Variance, mean: float = 0.3, std: float = 0.25, **kwargs
) -> ReverseProcess:
    return ReverseProcess(OptimalNetwork(q, prediction, variance, mean, std), q, prediction, variance, **kwargs)


def gaussian_data(n: int, dims: int, mean: float = 0.3, std: float = 0.25) -> Tensor:
    return mean + std * torch.randn(n, dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def levels(x: Tensor) -> Tensor:
    """The nearest of the 256 levels."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
