"""SA-Solver, which corrects what it predicts and adds noise only where that helps; Xue et al. 2023."""

import math
from typing import final

import torch

from ddpm.diffusion.process import Batch, ForwardProcess, Time, expand
from ddpm.diffusion.sampler import Sampler, Times, Visit
from ddpm.samplers.limits import check_limits, limits
from ddpm.samplers.multistep import Half, chain, half_log_snr

PREDICTORS, CORRECTORS = (1, 2, 3), (0, 1, 2, 3, 4)


@final
class SASolver(Sampler):
    """SA-Solver solves the reverse SDE with tau times its noise by a predictor and a corrector; Xue et al. 2023.

    A step follows the polynomial in half log SNR through the last estimates of x_0, and is corrected by the estimate at
    its end; its noise stays. The first steps have fewer estimates to go by, and so a lower order; the last, to infinite
    SNR, goes to the estimate.

    Args:
        order: how many estimates predict.
        corrector: how many correct, that at the end of the step among them; 0 is no correction.
        tau: 0 is the ODE, 1 the ancestral chain.
        S_min: the deviation sqrt(1 / alpha_bar_t - 1) from which on a step has noise; below it tau is 0.
        S_max: up to which deviation; None for all.

    Raises:
        ValueError: an unknown order, too few steps for it, or a setting outside its range.
    """

    def __init__(
        self,
        steps: int | None = 10,
        order: int = 2,
        corrector: int = 3,
        tau: float = 1.0,
        S_min: float = 0.05,
        S_max: float | None = 2.0,
        spacing: str = "log_snr",
        times: Times | None = None,
    ) -> None:
        for name, value, known in (("order", order, PREDICTORS), ("corrector", corrector, CORRECTORS)):
            if value not in known:
                raise ValueError(f"{name}={value} is not one of {', '.join(map(str, known))}")
        if not 0 <= tau < math.inf:
            raise ValueError(f"tau={tau} must be a number of at least 0: 0 is deterministic, 1 ancestral")
        super().__init__(steps, spacing, times, fewest=max(order + 1, corrector))
        self.order, self.corrector, self.tau = order, corrector, tau
        self.S_min, self.S_max = limits(S_min, S_max)

    @property
    def label(self) -> str:
        return f"SA-Solver {self.order} (τ = {self.tau:g})"

    @property
    def stochastic(self) -> bool:
        return self.tau > 0

    def steps(self, q: ForwardProcess) -> list[int]:
        check_limits(q, self.S_min, self.S_max)
        return super().steps(q)

    def arrive(self, q: ForwardProcess, here: Visit) -> Visit:
        """Exchange what the last step took for x_0 for what the estimate at its end says; Algorithm 1, SA-Corrector."""
        if here.before is None or not self.corrector:
            return here
        t, s, x_t = here.before.t, here.t, here.x_t
        visits = [here, *chain(here.before, self.corrector)][: self.corrector]
        gained = self._x_0(q, visits, t, s) - self._x_0(q, chain(here.before, self.order), t, s)
        return here._replace(x_t=x_t + q.signal(s, x_t) * expand(-torch.expm1(-self._length(q, t, s)), x_t) * gained)

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        """Predict x_s; Algorithm 1, SA-Predictor."""
        t, x_t = here.t, here.x_t
        if not bool(q.snr(s).isfinite().all()):
            return here.estimate.x_0
        h, length = half_log_snr(q, s) - half_log_snr(q, t), self._length(q, t, s)
        kept = expand((h - length).exp(), x_t) / q.noise_scale(t, x_t) * x_t
        fresh = expand((-torch.expm1(2 * (h - length))).sqrt(), x_t) * noise
        x_0 = expand(-torch.expm1(-length), x_t) * self._x_0(q, chain(here, self.order), t, s)
        return q.noise_scale(s, x_t) * (kept + fresh) + q.signal(s, x_t) * x_0

    def _length(self, q: ForwardProcess, t: Time, s: Time) -> Half:
        """(1 + tau^2) h of a step from t to s: x_t has the weight exp of minus this beside an x_0 that stays."""
        tau = self.tau if self.S_min <= float(q.snr(t[:1])) ** -0.5 <= self.S_max else 0.0
        return (1 + tau**2) * (half_log_snr(q, s) - half_log_snr(q, t))

    def _x_0(self, q: ForwardProcess, visits: list[Visit], t: Time, s: Time) -> Batch:
        """The constant x_0 whose step from t to s is that of the polynomial through the estimates of the visits."""
        start, length = half_log_snr(q, t), self._length(q, t, s)
        h = half_log_snr(q, s) - start
        u = torch.stack([(half_log_snr(q, visit.t) - start) / h for visit in visits], 1)
        moments = [torch.ones_like(length)]  # of u between 0 and 1, which the step weighs by exp(length u)
        for k in range(1, len(visits)):
            moments.append(-1 / torch.expm1(-length) - k / length * moments[-1])
        powers = torch.stack([u**k for k in range(len(visits))], 1)
        weights = torch.linalg.solve(powers, torch.stack(moments, 1)[..., None])[..., 0].unbind(1)
        x_0 = [expand(weight, visit.x_t) * visit.estimate.x_0 for weight, visit in zip(weights, visits, strict=True)]
        return torch.stack(x_0).sum(0)
