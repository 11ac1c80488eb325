"""Chains of a network that is no Gaussian's, for samplers to be held against other codebases' in float64."""

import torch

from ddpm.diffusion.prediction import X0
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedSmall

Q = ForwardProcess(linear(1000))
SIGMA = (1 / Q.alpha_bar - 1).sqrt()  # by t


class Wavy(torch.nn.Module):
    """An estimate of x_0 that is no Gaussian's."""

    def forward(self, x, t_from_0):
        return torch.sin(2 * x + t_from_0[:, None] / 1000)


def x_T(n=5):
    return torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rng():
    return torch.Generator().manual_seed(1)


def states(sampler, x):
    p = ReverseProcess(Wavy(), Q, X0(), FixedSmall())
    return [state.x_t for state in sampler(p, x, rng(), clip=False)]


def theirs(scheduler, times, x, **arguments):
    """States of one of diffusers' schedulers at our times; they draw noise from the same generator as ours do."""
    scheduler.set_timesteps(len(times))
    scheduler.timesteps = torch.tensor([t - 1 for t in times])
    scheduler.sigmas = torch.cat([SIGMA[times], torch.zeros(1, dtype=torch.float64)])
    found = []
    for t in scheduler.timesteps:
        x = scheduler.step(Wavy()(x, t.expand(len(x))), t, x, **arguments).prev_sample
        found.append(x)
    return found
