"""Heun's method with fresh noise on the way; Karras et al. 2022, Algorithm 2."""

import math
from typing import final

from ddpm.diffusion.process import Batch, Coefficient, ForwardProcess, Time
from ddpm.diffusion.sampler import Sampler, Times, Visit
from ddpm.samplers.limits import check_limits, limits


@final
class Heun(Sampler):
    """EDM's sampler: noise is added, an Euler step taken, and corrected by the slope at its end; Karras et al. 2022.

    It moves x_t / sqrt(alpha_bar_t), whose noise has the deviation sigma = sqrt(1 / alpha_bar_t - 1). The network knows
    the times of the table alone, so that noise is added up to the sigma of one of them, as in the authors' code. Each
    step has two evaluations and the last, to sigma = 0, one; an even number of `steps` leaves the last correction out.
    The `times` are those between Euler's steps, steps // 2 + 1 of them.

    Args:
        S_churn: sigma grows by S_churn / (number of times) of itself before a step, at most by sqrt(2) - 1.
        S_min: from which sigma on.
        S_max: up to which sigma; None for all.
        S_noise: the deviation of the noise, for which less than 1 would be right.

    Raises:
        ValueError: fewer than three steps, or a setting outside its range.
    """

    def __init__(
        self,
        steps: int | None = 19,
        S_churn: float = 0.0,
        S_min: float = 0.0,
        S_max: float | None = None,
        S_noise: float = 1.0,
        spacing: str = "karras",
        times: Times | None = None,
    ) -> None:
        if steps is not None and steps < 3:
            raise ValueError(f"steps={steps} must be at least 3: two for a step of Heun's, one for the last")
        between = None if steps is None else steps // 2 + 1
        if times is not None and between not in (None, len(times)):
            raise ValueError(f"steps={steps} have {between} times, not {len(times)}: use steps={2 * len(times) - 1}")
        if not 0 <= S_churn < math.inf or not 0 <= S_noise < math.inf:
            raise ValueError(f"S_churn={S_churn} and S_noise={S_noise} must be numbers of at least 0")
        super().__init__(None if times else between, spacing, times, fewest=2)
        self.evaluations, self.S_churn, self.S_noise = steps, S_churn, S_noise
        self.S_min, self.S_max = limits(S_min, S_max)

    @property
    def label(self) -> str:
        return "Heun" + (f" (churn {self.S_churn:g})" if self.S_churn else "")

    @property
    def stochastic(self) -> bool:
        return self.S_churn > 0

    def steps(self, q: ForwardProcess) -> list[int]:
        """The times of evaluations, in pairs: at the end of a step, and at the sigma from which the next one starts."""
        check_limits(q, self.S_min, self.S_max)
        first, *between = self.nodes(q)
        sigma = (1 / q.alpha_bar - 1).sqrt().tolist()
        growth = 1 + min(self.S_churn / (1 + len(between)), math.sqrt(2) - 1)
        visits = [first]
        for t in between:
            wish = sigma[t] * (growth if self.S_min <= sigma[t] <= self.S_max else 1)
            visits += [t, min(range(t, q.T + 1), key=lambda k, wish=wish: abs(sigma[k] - wish))]  # type: ignore[misc]
        return visits[: self.evaluations]

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        if bool((s < here.t).all()):  # Euler's step
            return q.implicit_posterior(here.estimate.x_0, here.x_t, here.t, s, eta=0.0).mean
        x, now, above = here.x_t / q.signal(here.t, noise), _sigma(q, here.t, noise), _sigma(q, s, noise)
        if (before := here.before) is not None:
            start, then = before.x_t / q.signal(before.t, noise), _sigma(q, before.t, noise)
            slopes = (start - before.estimate.x_0) / then + (x - here.estimate.x_0) / now
            x = start + (now - then) * slopes / 2
        return q.signal(s, noise) * (x + (above**2 - now**2).clamp(min=0).sqrt() * self.S_noise * noise)


def _sigma(q: ForwardProcess, t: Time, like: Batch) -> Coefficient:
    """The deviation of the noise in x_t / sqrt(alpha_bar_t)."""
    return q.noise_scale(t, like) / q.signal(t, like)
