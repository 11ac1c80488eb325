"""Between which deviations of the noise a sampler adds more of it; Karras et al. 2022, Section 4.

The deviation is that of the noise in x_t / sqrt(alpha_bar_t), sigma = sqrt(1 / alpha_bar_t - 1).
"""

import math

from ddpm.diffusion.process import ForwardProcess


def limits(S_min: float, S_max: float | None) -> tuple[float, float]:
    """The limits of sigma, the upper one infinity for None.

    Raises:
        ValueError: the first is not below the second, or is negative.
    """
    low, high = S_min, math.inf if S_max is None else S_max
    if not 0 <= low < high:
        raise ValueError(f"S_min={S_min} and S_max={S_max} must be limits of sigma, the first below the second")
    return low, high


def check_limits(q: ForwardProcess, low: float, high: float) -> None:
    """Raises ValueError where the limits leave nothing of the schedule."""
    first, last = ((1 / float(q.alpha_bar[t]) - 1) ** 0.5 for t in (1, q.T))
    if low > last or high < first:
        raise ValueError(
            f"S_min={low:g} and S_max={high:g} leave nothing of the schedule, whose sigma goes from {first:.3g} to "
            f"{last:.3g}"
        )
