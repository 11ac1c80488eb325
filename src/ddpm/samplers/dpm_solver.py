"""DPM-Solver++ of several steps and of one, for the ODE and for the SDE; Lu et al. 2022."""

from itertools import pairwise
from typing import final

import torch

from ddpm.diffusion.process import Batch, ForwardProcess, Time, expand
from ddpm.diffusion.sampler import Sampler, Times, Visit
from ddpm.samplers.ddim import checked_eta
from ddpm.samplers.multistep import Half, chain, half_log_snr

ORDERS = (2, 3)


@final
class DPMSolver(Sampler):
    """DPM-Solver++(2M) or (3M): DDIM's step at an x_0 extrapolated in half log SNR; Lu et al. 2022, Algorithm 2.

    With eta = 1 it is SDE-DPM-Solver++, whose step is the ancestral chain's; order 3 extrapolates noise then, and needs
    many steps. The first steps have fewer estimates to go by, and so a lower order; the last, to infinite SNR, goes to
    the estimate.

    Raises:
        ValueError: an unknown order, too few steps for it, or eta is not in [0, 1].
    """

    def __init__(
        self,
        steps: int | None = 20,
        order: int = 2,
        eta: float = 0.0,
        spacing: str = "quadratic",
        times: Times | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order={order} is not one of {', '.join(map(str, ORDERS))}")
        super().__init__(steps, spacing, times, fewest=order + 1)
        self.order, self.eta = order, checked_eta(eta)

    @property
    def label(self) -> str:
        return f"DPM-Solver++({self.order}M)" + (f" η = {self.eta:g}" if self.eta else "")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        if not bool(q.snr(s).isfinite().all()):
            return here.estimate.x_0
        x_0 = self._extrapolated(q, chain(here, self.order), s)
        return q.implicit_posterior(x_0, here.x_t, here.t, s, self.eta).sample(noise)

    def _extrapolated(self, q: ForwardProcess, visits: list[Visit], s: Time) -> Batch:
        """The constant x_0 whose step is that of the line, or the parabola, through the estimates."""
        x_0, *earlier = (visit.estimate.x_0 for visit in visits)
        if not earlier:
            return x_0
        lambdas = [half_log_snr(q, t) for t in (s, *(visit.t for visit in visits))]
        h, *hs = (later - now for later, now in pairwise(lambdas))
        slope = expand(h / hs[0], x_0) * (x_0 - earlier[0])
        if len(earlier) == 1:
            return x_0 + slope / 2
        slope_before = expand(h / hs[1], x_0) * (earlier[0] - earlier[1])
        curvature = expand(h / (hs[0] + hs[1]), x_0) * (slope - slope_before)
        slope = slope + expand(hs[0] / h, x_0) * curvature
        on_slope, on_curvature = self._weights(q, visits[0].t, s, h)
        return x_0 + expand(on_slope, x_0) * slope + expand(on_curvature, x_0) * curvature

    def _weights(self, q: ForwardProcess, t: Time, s: Time, h: Half) -> tuple[Half, Half]:
        """The means of u and u^2 / 2 over a step from u = 0 to 1 of length h, as the step weighs its parts."""
        kept = 1 - self.eta**2 * q.beta(t, s) / (1 - 1 / (1 + 1 / q.snr(t)))  # of sigma_s^2, by what is no new noise
        h = h - kept.log() / 2
        phi_1, phi_2 = -torch.expm1(-h), 1 + torch.expm1(-h) / h
        return phi_2 / phi_1, (1 / 2 - phi_2 / h) / phi_1


@final
class DPMSolver2S(Sampler):
    """DPM-Solver++(2S), which makes each step from two estimates and then forgets them; Lu et al. 2022, Algorithm 1.

    The times are in turn those where a step begins and those within it, at which the second estimate is made.

    Raises:
        ValueError: fewer than three steps.
    """

    def __init__(self, steps: int | None = 20, spacing: str = "quadratic", times: Times | None = None) -> None:
        super().__init__(steps, spacing, times, fewest=3)

    @property
    def label(self) -> str:
        return "DPM-Solver++(2S)"

    @property
    def stochastic(self) -> bool:
        return False

    def arrive(self, q: ForwardProcess, here: Visit) -> Visit:
        within = here.before is not None and here.before.before is None
        return here if within else here._replace(before=None)

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        x_0, before = here.estimate.x_0, here.before
        if before is None or not bool(q.snr(s).isfinite().all()):
            return q.implicit_posterior(x_0, here.x_t, here.t, s, eta=0.0).mean
        start, within, end = (half_log_snr(q, t) for t in (before.t, here.t, s))
        first = before.estimate.x_0
        x_0 = first + expand((end - start) / (within - start) / 2, x_0) * (x_0 - first)
        return q.implicit_posterior(x_0, before.x_t, before.t, s, eta=0.0).mean
