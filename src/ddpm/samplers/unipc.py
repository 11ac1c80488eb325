"""UniPC, whose predictor and corrector cost no more evaluations than the predictor alone; Zhao et al. 2023."""

import math
from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from ddpm.diffusion.process import Batch, ForwardProcess, Time, expand
from ddpm.diffusion.sampler import Sampler, Times, Visit
from ddpm.samplers.multistep import Half, chain, half_log_snr

ORDERS, VARIANTS = (1, 2, 3), ("bh1", "bh2")


@final
class UniPC(Sampler):
    """UniPC of order 2 or 3 for x_0, in half log SNR: Algorithms 1 and 2 of Zhao et al. 2023 as B(h) = h or e^h - 1.

    Each step predicts x_s from the last estimates; the estimate made there then corrects x_s before the next step. The
    first steps have fewer estimates to go by, and so a lower order; the last, to infinite SNR, goes to the estimate.

    Raises:
        ValueError: an unknown order or variant, or too few steps for the order.
    """

    def __init__(
        self,
        steps: int | None = 10,
        order: int = 2,
        variant: str = "bh2",
        spacing: str = "quadratic",
        times: Times | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order={order} is not one of {', '.join(map(str, ORDERS))}")
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is not one of {', '.join(VARIANTS)}")
        super().__init__(steps, spacing, times, fewest=order + 1)
        self.order, self.variant = order, variant

    @property
    def label(self) -> str:
        return f"UniPC {self.order} ({self.variant})"

    @property
    def stochastic(self) -> bool:
        return False

    def arrive(self, q: ForwardProcess, here: Visit) -> Visit:
        """Correct x_t by the estimate at t; Algorithm 1, UniC."""
        if here.before is None:
            return here
        earlier = chain(here.before, self.order)
        return here._replace(x_t=self._moved(q, earlier, here.t, here.estimate.x_0))

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        """Predict x_s; Algorithm 2, UniP."""
        if not bool(q.snr(s).isfinite().all()):
            return here.estimate.x_0
        return self._moved(q, chain(here, self.order), s)

    def _moved(self, q: ForwardProcess, earlier: list[Visit], s: Time, x_0_at_s: Batch | None = None) -> Batch:
        """x_s from estimates at earlier times, the newest first, and from the one at s itself if it is known."""
        here = earlier[0]
        h = half_log_snr(q, s) - half_log_snr(q, here.t)
        ratios, slopes = [], []
        for visit in earlier[1:]:
            ratio = (half_log_snr(q, visit.t) - half_log_snr(q, here.t)) / h
            ratios.append(ratio)
            slopes.append((visit.estimate.x_0 - here.estimate.x_0) / expand(ratio, here.x_t))
        if x_0_at_s is not None:
            ratios.append(torch.ones_like(h))
            slopes.append(x_0_at_s - here.estimate.x_0)
        shrinks = torch.expm1(-h)
        scale = -h if self.variant == "bh1" else shrinks
        x = q.noise_scale(s, here.x_t) / q.noise_scale(here.t, here.x_t) * here.x_t
        x = x - q.signal(s, x) * expand(shrinks, x) * here.estimate.x_0
        if not slopes:
            return x
        for weight, slope in zip(_weights(-h, scale, torch.stack(ratios, 1)).unbind(1), slopes, strict=True):
            x = x - q.signal(s, x) * expand(scale * weight, x) * slope
        return x


def _weights(h: Half, scale: Half, ratios: Float64[Tensor, "b p"]) -> Float64[Tensor, "b p"]:
    """The weights of p differences with which a step is of order p + 1; Eq. (7), Theorem 3.1.

    A single one is 1/2, with which UniPC of order 1 and 2 keep their order and need no system to be solved.
    """
    p = ratios.shape[1]
    if p == 1:
        return torch.full_like(ratios, 0.5)
    powers = torch.stack([ratios**i for i in range(p)], 1)
    phi, sides = torch.expm1(h) / h - 1, []
    for i in range(1, p + 1):
        sides.append(phi * math.factorial(i) / scale)
        phi = phi / h - 1 / math.factorial(i + 1)
    solved: Tensor = torch.linalg.solve(powers, torch.stack(sides, 1)[..., None])
    return solved[..., 0]
