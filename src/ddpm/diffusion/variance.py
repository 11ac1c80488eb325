"""The variance of the reverse step p_theta(x_s | x_t) (the second axis of Table 2).

The best variance lies between beta~, which is right if the data are one point, and beta, which is right if they are
N(0, I) (section 3.2). At s = 0, where beta~ is 0, the decoder needs a variance: as in the original it is that of
q(x_1 | x_2, x_0).
"""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from jaxtyping import Float64
from torch import Tensor

from ddpm.diffusion.process import Batch, Coefficient, ForwardProcess, Time, expand


class Variance(ABC):
    """A rule for log Sigma_theta(x_t, t), the log variance of a step from t to any s < t.

    Attributes:
        learned: the network has a second output for each channel, from which `log_var` reads the variance.
    """

    learned: ClassVar[bool]

    @abstractmethod
    def log_var(self, q: ForwardProcess, raw: Batch | None, x_t: Batch, t: Time, s: Time) -> Coefficient:
        """The log variance of p_theta(x_s | x_t), to be broadcast over x_t; `raw` is the second output, if any."""


@final
class FixedLarge(Variance):
    """The variance is sigma_t^2 = beta_t; section 3.2."""

    learned = False

    def log_var(self, q: ForwardProcess, raw: Batch | None, x_t: Batch, t: Time, s: Time) -> Coefficient:
        low, width = _range(q, t, s)
        return expand(torch.where(s.to(low.device) > 0, low + width, low), x_t)


@final
class FixedSmall(Variance):
    """The variance is sigma_t^2 = beta~_t; section 3.2."""

    learned = False

    def log_var(self, q: ForwardProcess, raw: Batch | None, x_t: Batch, t: Time, s: Time) -> Coefficient:
        return expand(_range(q, t, s)[0], x_t)


@final
class Learned(Variance):
    """The raw output is log Sigma_theta for s = t - 1, unbounded; the first row of Table 2.

    For other s, its place between log beta~ and log beta is carried over, cut to that interval: late in the chain the
    interval of a single step is so narrow that a value outside would be carried over to any size.
    """

    learned = True

    def log_var(self, q: ForwardProcess, raw: Batch | None, x_t: Batch, t: Time, s: Time) -> Coefficient:
        assert raw is not None
        low_1, width_1 = (expand(value, x_t) for value in _range(q, t, t - 1))
        low, width = (expand(value, x_t) for value in _range(q, t, s))
        carried = low + ((raw - low_1) / width_1).clamp(0, 1) * width
        adjacent = (s == t - 1).reshape(-1, *[1] * (x_t.ndim - 1))
        return torch.where(adjacent, raw, carried)


@final
class LearnedRange(Variance):
    """The log variance is v log beta + (1 - v) log beta~ with v = (raw + 1) / 2; Nichol & Dhariwal 2021, Eq. (15).

    v is not bounded to [0, 1], as there.
    """

    learned = True

    def log_var(self, q: ForwardProcess, raw: Batch | None, x_t: Batch, t: Time, s: Time) -> Coefficient:
        assert raw is not None
        low, width = (expand(value, x_t) for value in _range(q, t, s))
        return low + (raw + 1) / 2 * width


def _range(q: ForwardProcess, t: Time, s: Time) -> tuple[Float64[Tensor, " b"], Float64[Tensor, " b"]]:
    """log beta~ (with the rule for s = 0) and log beta - log beta~, whose digits a float32 difference would lose."""
    low = q.beta_tilde(t.clamp(min=2), s.clamp(min=1)).log()
    return low, (q.beta(t, s).log() - low).clamp(min=1e-12)
