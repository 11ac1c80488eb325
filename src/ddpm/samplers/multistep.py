"""What samplers share that look back at earlier estimates: time as half the log SNR, and the visits before."""

from jaxtyping import Float64
from torch import Tensor

from ddpm.diffusion.process import ForwardProcess, Time
from ddpm.diffusion.sampler import Visit

Half = Float64[Tensor, " b"]  # half the log SNR of each example


def half_log_snr(q: ForwardProcess, t: Time) -> Half:
    """lambda_t = log(sqrt(alpha_bar_t) / sqrt(1 - alpha_bar_t)); infinite at t = 0."""
    return q.snr(t).log() / 2


def chain(visit: Visit, longest: int) -> list[Visit]:
    """A visit and those before it, the newest first, at most so many."""
    found = [visit]
    while len(found) < longest and (before := found[-1].before) is not None:
        found.append(before)
    return found
