"""DEIS, which integrates a polynomial in t through the last estimates of the noise; Zhang and Chen 2023."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from ddpm.diffusion.process import Batch, ForwardProcess, Time
from ddpm.diffusion.sampler import Sampler, Times, Visit
from ddpm.samplers.multistep import chain

ORDERS = (1, 2, 3)
# Gauss and Legendre's points and weights on [0, 1].
POINTS = (0.06943184420297371, 0.33000947820757187, 0.6699905217924281, 0.9305681557970263)
WEIGHTS = (0.17392742256872692, 0.32607257743127307, 0.32607257743127307, 0.17392742256872692)


@final
class DEIS(Sampler):
    """tAB-DEIS of order 1, 2 or 3: x_s / sqrt(alpha_bar) moves by the integral of the noise over sigma, Eqs. (14)-(15).

    The noise is the polynomial of this degree in t through the last estimates; the first steps have fewer of them, the
    last goes to the estimate of x_0. Between the times of the table, alpha_bar is linear, as in the authors' code.

    Raises:
        ValueError: an unknown order, or too few steps for it.
    """

    def __init__(
        self, steps: int | None = 10, order: int = 3, spacing: str = "quadratic", times: Times | None = None
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order={order} is not one of {', '.join(map(str, ORDERS))}")
        super().__init__(steps, spacing, times, fewest=order + 2)
        self.order = order

    @property
    def label(self) -> str:
        return f"DEIS {self.order} (tAB)"

    @property
    def stochastic(self) -> bool:
        return False

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        if not bool(q.snr(s).isfinite().all()):
            return here.estimate.x_0
        visits = chain(here, self.order + 1)
        x = here.x_t / q.signal(here.t, here.x_t)
        for weight, visit in zip(_weights(q, [int(visit.t[0]) for visit in visits], int(s[0])), visits, strict=True):
            x_t = visit.x_t
            scale = q.noise_scale(visit.t, x_t)
            x = x + weight.item() / scale * (x_t - q.signal(visit.t, x_t) * visit.estimate.x_0)
        return q.signal(s, x) * x


def _weights(q: ForwardProcess, times: list[int], s: int) -> Float64[Tensor, " n"]:
    """Integrals over sigma = sqrt(1 / alpha_bar - 1), from times[0] to s, of the Lagrange polynomials of `times`."""
    alpha_bar = q.alpha_bar[s : times[0] + 1].cpu()
    sigma = (1 / alpha_bar - 1).sqrt()
    share, weight = (torch.tensor(each, dtype=torch.float64) for each in (POINTS, WEIGHTS))
    there = sigma[:-1, None] + share * sigma.diff()[:, None]
    fraction = (1 / (1 + there**2) - alpha_bar[:-1, None]) / alpha_bar.diff()[:, None]
    t = torch.arange(s, times[0], dtype=torch.float64)[:, None] + fraction
    parts = -weight * sigma.diff()[:, None]
    lagrange = [[(t - k) / (j - k) for k in times if k != j] for j in times]
    return torch.stack([torch.stack([torch.ones_like(t), *each]).prod(0).mul(parts).sum() for each in lagrange])
