"""Prediction types: what the network's output stands for (the first axis of Table 2)."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch

from ddpm.diffusion.process import Batch, ForwardProcess, Time


class Prediction(ABC):
    """A regression target, and the way back from it to x_0, which must be linear in the output and x_t."""

    symbol: ClassVar[str] = "the output"  # what figures call the target

    def network_input(self, q: ForwardProcess, x_t: Batch, t: Time) -> Batch:
        """What the network is given of x_t: x_t itself, unless a prediction scales it."""
        return x_t

    @abstractmethod
    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        """What the network is to put out at x_t = q.diffuse(x_0, t, noise)."""

    @abstractmethod
    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        """The estimate of x_0 that the network's output at x_t implies: the inverse of `target`."""

    def mean(self, q: ForwardProcess, output: Batch, x_0: Batch, x_t: Batch, t: Time, s: Time) -> Batch:
        """mu_theta(x_t, t), the mean of p_theta(x_s | x_t), given the possibly clipped estimate `x_0`."""
        return q.posterior(x_0, x_t, t, s).mean


@final
class Epsilon(Prediction):
    """The network predicts the noise in x_t; Eqs. (9), (11)."""

    symbol = "ε"

    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        return noise

    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        return (x_t - q.noise_scale(t, x_t) * output) / q.signal(t, x_t)


@final
class Mu(Prediction):
    """The network predicts mu_tilde_t(x_t, x_0), the posterior mean; Eqs. (7), (8).

    For s = t - 1 the output itself is the mean, and clipping touches only the reported x_0, as in the original.
    """

    symbol = "μ"

    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        return q.posterior(x_0, q.diffuse(x_0, t, noise), t).mean

    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        on_x_0, on_x_t = q.posterior_weights(t, t - 1, x_t)
        return (output - on_x_t * x_t) / on_x_0

    def mean(self, q: ForwardProcess, output: Batch, x_0: Batch, x_t: Batch, t: Time, s: Time) -> Batch:
        adjacent = (s == t - 1).reshape(-1, *[1] * (x_t.ndim - 1))
        return torch.where(adjacent, output, q.posterior(x_0, x_t, t, s).mean)


@final
class X0(Prediction):
    """The network predicts x_0 itself; Ho et al. 2020, section 3.2."""

    symbol = "$x_0$"

    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        return x_0

    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        return output


@final
class Velocity(Prediction):
    """The network predicts v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0; Salimans & Ho 2022, appendix D."""

    symbol = "v"

    def target(self, q: ForwardProcess, x_0: Batch, noise: Batch, t: Time) -> Batch:
        return q.signal(t, x_0) * noise - q.noise_scale(t, x_0) * x_0

    def x_0(self, q: ForwardProcess, output: Batch, x_t: Batch, t: Time) -> Batch:
        return q.signal(t, x_t) * x_t - q.noise_scale(t, x_t) * output
