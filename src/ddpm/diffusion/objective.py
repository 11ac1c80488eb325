"""Training objectives (the third axis of Table 2): each is a loss per example, which the caller averages."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

from jaxtyping import Float, Float64
from torch import Tensor

from ddpm.diffusion.gaussian import Gaussian
from ddpm.diffusion.likelihood import bits_per_dim, bound_term
from ddpm.diffusion.process import Batch, Time, expand
from ddpm.diffusion.reverse import Estimate, ReverseProcess


class Weighting(ABC):
    """A weight, for each t, of the squared error in the space of the prediction."""

    uniform: ClassVar[bool]  # whether every t weighs the same

    @abstractmethod
    def __call__(self, p: ReverseProcess, t: Time) -> Float64[Tensor, " b"]:
        """The weight of each example."""


@final
class Unweighted(Weighting):
    """The weight is 1, as in L_simple; Eq. (14)."""

    uniform = True

    def __call__(self, p: ReverseProcess, t: Time) -> Float64[Tensor, " b"]:
        return p.q.alpha_bar.new_ones(len(t))


@final
class MinSNR(Weighting):
    """The loss is min(SNR_t, gamma) times the squared error of x_0, whatever is predicted; Hang et al. 2023, Eq. 8."""

    uniform = False

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma={gamma} must be positive")
        self.gamma = gamma

    def __call__(self, p: ReverseProcess, t: Time) -> Float64[Tensor, " b"]:
        return p.q.snr(t).clamp(max=self.gamma) * x_0_error_per_error(p, t)


def x_0_error_per_error(p: ReverseProcess, t: Time) -> Float64[Tensor, " b"]:
    """The squared error of x_0 that a squared error of 1 in the space of the prediction makes; x_0 is linear in it."""
    one = p.q.alpha_bar.new_ones(len(t), 1)
    return p.prediction.x_0(p.q, one, 0 * one, t).squeeze(1).square()


class Objective(ABC):
    """A training loss."""

    trains_variance: ClassVar[bool]  # whether a learned variance receives a gradient
    needs_learned_variance: ClassVar[bool]  # whether the loss makes no sense without one

    @abstractmethod
    def __call__(self, p: ReverseProcess, x_0: Batch, t: Time, noise: Batch) -> Float[Tensor, " b"]:
        """The loss of each example at x_t = p.q.diffuse(x_0, t, noise)."""


@final
class Simple(Objective):
    """The squared error in the space of the prediction, mean over dimensions: L_simple for epsilon; Eq. (14).

    It gives a learned variance no gradient.
    """

    trains_variance = False
    needs_learned_variance = False

    def __init__(self, weighting: Weighting | None = None) -> None:
        self.weighting = weighting or Unweighted()

    def __call__(self, p: ReverseProcess, x_0: Batch, t: Time, noise: Batch) -> Float[Tensor, " b"]:
        error = _squared_error(p, p(p.q.diffuse(x_0, t, noise), t), x_0, t, noise)
        return expand(self.weighting(p, t), error) * error


@final
class Vlb(Objective):
    """scale * L_{t-1} in bits/dim, whose mean over uniform t is (L - L_T) / T, as in the original; Eq. (5).

    `scale` = T estimates the whole of L - L_T.
    """

    trains_variance = True
    needs_learned_variance = False

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, p: ReverseProcess, x_0: Batch, t: Time, noise: Batch) -> Float[Tensor, " b"]:
        x_t = p.q.diffuse(x_0, t, noise)
        return self.scale * bits_per_dim(bound_term(p, p(x_t, t), x_0, x_t, t), x_0[0].numel())


@final
class Hybrid(Objective):
    """L_simple + weight * L_vlb in bits/dim, where L_vlb reaches only the variance; Nichol & Dhariwal 2021, Eq. (16).

    T L_{t-1} stands for L_vlb, which is right for uniform t.
    """

    trains_variance = True
    needs_learned_variance = True

    def __init__(self, weight: float = 1e-3) -> None:
        self.weight = weight

    def __call__(self, p: ReverseProcess, x_0: Batch, t: Time, noise: Batch) -> Float[Tensor, " b"]:
        x_t = p.q.diffuse(x_0, t, noise)
        estimate: Estimate = p(x_t, t)
        variance_only = estimate._replace(step=Gaussian(estimate.step.mean.detach(), estimate.step.log_var))
        bound = p.q.T * bits_per_dim(bound_term(p, variance_only, x_0, x_t, t), x_0[0].numel())
        return _squared_error(p, estimate, x_0, t, noise) + self.weight * bound


def _squared_error(p: ReverseProcess, estimate: Estimate, x_0: Batch, t: Time, noise: Batch) -> Float[Tensor, " b"]:
    target = p.prediction.target(p.q, x_0, noise, t)
    if target.shape != estimate.output.shape:  # it would be broadcast
        raise ValueError(
            f"{type(p.prediction).__name__}.target is {list(target.shape)} for x_0 {list(x_0.shape)}: one number for "
            "each of the network's is due"
        )
    return (estimate.output - target).square().flatten(1).mean(1)
