"""The best networks for data of known law, in closed form: what they should sample, and their bound, are known.

The law is x_0 ~ N(mean, std^2 I), or a mixture of such Gaussians, each a class that the network may be told.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ddpm.diffusion.condition import Condition
from ddpm.diffusion.prediction import X0, Prediction
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


class OptimalForClasses(nn.Module):
    """E[target | x_t, class], and E[target | x_t] where the class is dropped; each class is N(mean, std^2 I).

    With a learned variance, log Var[x_{t-1} | x_t, class].
    """

    def __init__(self, q, prediction, variance, means: Tensor, stds: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.q, self.prediction, self.variance = q, prediction, variance
        self.means, self.stds, self.weights = means, stds, weights

    def log_joint(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p_t(x_t, class) for every class, [b, K]."""
        a = self.q.alpha_bar[t][:, None]
        variance = a * self.stds**2 + 1 - a
        centered = x_t[:, None] - (a.sqrt() * self.means)[..., None]
        each = -0.5 * (centered**2 / variance[..., None] + variance.log()[..., None] + math.log(2 * math.pi))
        return each.sum(2) + self.weights.log()

    def forward(self, x: Tensor, t_from_0: Tensor, told: Condition) -> Tensor:
        t = t_from_0 + 1
        laws = zip(self.means, self.stds, strict=True)
        of_class = [OptimalNetwork(self.q, X0(), self.variance, mean, std) for mean, std in laws]
        x_0, *raw = torch.stack([each(x, t_from_0) for each in of_class], 1).split(x.shape[1], 2)  # [b, K, d]
        known = torch.nn.functional.one_hot(told.labels.clamp(min=0), len(self.means)).to(x.dtype)
        share = torch.where((told.labels >= 0)[:, None], known, self.log_joint(x, t).softmax(1))[..., None]
        x_0 = (share * x_0).sum(1)
        noise = (x - self.q.signal(t, x) * x_0) / self.q.noise_scale(t, x)
        return torch.cat([self.prediction.target(self.q, x_0, noise, t), *((share * each).sum(1) for each in raw)], 1)


class OptimalForCovariance(nn.Module):
    """E[target | x_t] for x_0 ~ N(mean, cov), whose elements may depend on each other."""

    def __init__(self, q: ForwardProcess, prediction: Prediction, mean: Tensor, cov: Tensor) -> None:
        super().__init__()
        self.q, self.prediction, self.mean, self.cov = q, prediction, mean, cov

    def forward(self, x: Tensor, t_from_0: Tensor) -> Tensor:
        t = t_from_0 + 1
        a = self.q.alpha_bar[t][:, None, None]
        gain = a.sqrt() * self.cov @ torch.linalg.inv(a * self.cov + (1 - a) * torch.eye(len(self.mean)))
        x_0 = self.mean + (gain @ (x - a[:, 0].sqrt() * self.mean)[..., None])[..., 0]
        noise = (x - self.q.signal(t, x) * x_0) / self.q.noise_scale(t, x)
        return self.prediction.target(self.q, x_0, noise, t)


MEANS, STDS, WEIGHTS = ((torch.tensor(v, dtype=torch.float64)) for v in ([-0.5, 0.1, 0.6], [0.2, 0.05, 0.1],
                                                                         [0.5, 0.2, 0.3]))  # fmt: skip


def optimal_for_classes(q: ForwardProcess, prediction: Prediction, variance: Variance, **kwargs) -> ReverseProcess:
    network = OptimalForClasses(q, prediction, variance, MEANS, STDS, WEIGHTS)
    return ReverseProcess(network, q, prediction, variance, **kwargs)


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


def law(step, times):
    """Mean and deviation at the end of a chain x_s = step(x_t, t, s, z) that is affine in x_t and z, from N(0, 1)."""
    mean, variance = 0.0, 1.0
    for t, s in pairwise([*times, 0]):
        origin = step(0.0, t, s, 0.0)
        slope, sigma = step(1.0, t, s, 0.0) - origin, step(0.0, t, s, 1.0) - origin
        mean, variance = origin + slope * mean, slope**2 * variance + sigma**2
    return mean, math.sqrt(variance)


def levels(x: Tensor) -> Tensor:
    """The nearest of the 256 levels."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
