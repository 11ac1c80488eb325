"""The last step p_theta(x_0 | x_1) as a likelihood of data: the decoder of L_0."""

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from ddpm.diffusion.gaussian import Gaussian
from ddpm.diffusion.process import Batch


class Decoder(ABC):
    """A likelihood of data given the Gaussian p_theta(x_0 | x_1)."""

    @abstractmethod
    def log_prob(self, step: Gaussian, x_0: Batch) -> Batch:
        """log p_theta(x_0 | x_1) of every element of x_0, in nats; `step` is the Gaussian at t = 1."""


@final
class DiscretizedDecoder(Decoder):
    """The likelihood is the Gaussian's mass in a bin of width 2/255 around x_0, the outermost bins open; Eq. (13).

    `x_0` holds the 256 levels k / 127.5 - 1. Masses below 1e-12 count as 1e-12 (39.9 bits). `cdf="tanh"` is the
    original's approximation of the normal CDF, on which all published numbers rest (off by up to 1.8e-4);
    `cdf="exact"` integrates.
    """

    def __init__(self, cdf: str = "tanh") -> None:
        if cdf not in _CDFS:
            raise ValueError(f"evaluation.bits_per_dim.decoder={cdf} is not one of {', '.join(_CDFS)}")
        self.cdf = _CDFS[cdf]

    def log_prob(self, step: Gaussian, x_0: Batch) -> Batch:
        centered, inv_std = x_0 - step.mean, torch.exp(-0.5 * step.log_var)
        upper = self.cdf(inv_std * (centered + 1 / 255))
        lower = self.cdf(inv_std * (centered - 1 / 255))
        mass = torch.where(x_0 > 0.999, 1.0, upper) - torch.where(x_0 < -0.999, 0.0, lower)
        return mass.clamp(min=1e-12).log()


@final
class ContinuousDecoder(Decoder):
    """The likelihood is the Gaussian's density, for data that are not gray levels, such as points in the plane."""

    def log_prob(self, step: Gaussian, x_0: Batch) -> Batch:
        return step.log_prob(x_0)


def _tanh_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def _exact_cdf(z: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-z / math.sqrt(2))


_CDFS = {"tanh": _tanh_cdf, "exact": _exact_cdf}
