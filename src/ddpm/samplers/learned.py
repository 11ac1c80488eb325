"""Times that are learned for a sampler: those with which its chains end where its own fine chains do."""

from collections.abc import Callable
from itertools import pairwise

import torch

from ddpm.diffusion.process import Batch, ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler

Noise = Callable[[int, int], Batch]  # by t and s
SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of the way to the next time, by which a time is moved
PASSES = 3  # over all times, for each share, at most


def noise_along(q: ForwardProcess, x_T: Batch, draw: torch.Generator) -> Noise:
    """The noise of every step from t to s > 0, which is the same randomness for chains of any times.

    The posterior makes x_t sqrt(alpha_bar_t) / (1 - alpha_bar_t) a Brownian motion in the SNR but for what it adds of
    x_0: the noise of the step is the motion's increment, divided by its deviation sqrt(SNR_s - SNR_t).
    """
    snr = q.snr(torch.arange(1, q.T + 1)).flip(0).to(x_T)  # from T down to 1
    shape = (-1, *[1] * x_T.ndim)
    increments = torch.randn((q.T - 1, *x_T.shape), generator=draw, device=x_T.device, dtype=x_T.dtype)
    increments *= snr.diff().sqrt().reshape(shape)

    def noise(t: int, s: int) -> Batch:
        passed = slice(q.T - t, q.T - s)
        return increments[passed].sum(0) / snr.diff()[passed].sum().sqrt()

    return noise


class Chains:
    """Chains from given noise, and how far a sampler's ends are from those of a fine one.

    Args:
        p: told what each chain is of.
        fine: the sampler whose ends are to be met.
    """

    def __init__(self, p: ReverseProcess, x_T: Batch, draw: torch.Generator, fine: Sampler) -> None:
        self.p, self.x_T, self.draw = p, x_T, draw
        self.noise = noise_along(p.q, x_T, draw) if fine.stochastic else None
        self.ends = self.ends_of(fine)

    def ends_of(self, sampler: Sampler) -> Batch:
        """x_0 at the end of each chain."""
        *_, last = sampler(self.p, self.x_T, self.draw, noise_of=self.noise)
        return last.x_t

    def distance(self, sampler: Sampler) -> float:
        """The mean over chains of the root mean square between ends."""
        return (self.ends_of(sampler) - self.ends).flatten(1).square().mean(1).sqrt().mean().item()


def tries(n: int) -> int:
    """How many times `search` may ask for a distance, for n times."""
    return 1 + len(SHARES) * PASSES * 2 * (n - 1)


def search(times: list[int], distance: Callable[[list[int]], float]) -> tuple[list[int], float]:
    """Times of the least distance that a search along the coordinates finds from these on, and the distance.

    Each time but the first, T, is moved in turn towards one neighbour and the other: by half of the way as long as that
    helps, then by less.
    """
    best = distance(times)
    for share in SHARES:
        for _ in range(PASSES):
            before = best
            for k in range(1, len(times)):
                for neighbour in (k - 1, k + 1):
                    moved = times[k] + round(share * ([*times, 0][neighbour] - times[k]))
                    tried = [*times[:k], moved, *times[k + 1 :]]
                    if moved != times[k] and all(a > b for a, b in pairwise([*tried, 0])):
                        found = distance(tried)
                        if found < best:
                            times, best = tried, found
            if best == before:
                break
    return times, best
