"""The whole method in one picture, for points in the plane; after Sohl-Dickstein et al. 2015, Figure 1."""

from collections.abc import Callable

import torch
from PIL.Image import Image

from ddpm.data.dataset import Examples
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.figures import drawing

Told = Callable[[int], Condition | None]  # what is told of so many samples, on the device of the model

POINTS = 2000
FRACTIONS = (0.0, 0.02, 0.1, 0.3, 1.0)  # of T: most happens near the data
SIDE, REACH = 15, 1.2  # of the grid on which the drift is drawn


@torch.no_grad()
def picture(
    p: ReverseProcess,
    sampler: Sampler,
    draw: torch.Generator,
    between: Callable[[], None] = lambda: None,
    *,
    examples: Examples,
    told: Told,
) -> Image:
    """Points under q, points under p, and the drift mu_theta(x_t, t) - x_t, at the same few t.

    Args:
        told: what p is told of so many points.
    """
    visited = [*sampler.steps(p.q), 0]
    times = sorted({min(visited, key=lambda t, f=fraction: abs(t - f * p.q.T)) for fraction in FRACTIONS})  # type: ignore[misc]
    x_0 = examples.__getitems__(list(range(min(POINTS, len(examples))))).to(draw.device)

    def at(t: int, n: int) -> torch.Tensor:
        return torch.full((n,), t, device=draw.device)

    there = [
        p.q.diffuse(x_0, at(t, len(x_0)), torch.randn(x_0.shape, generator=draw, device=draw.device)) for t in times
    ]
    x_T = torch.randn(x_0.shape, generator=draw, device=draw.device)
    states = {p.q.T: x_T}
    for state in sampler(p.given(told(len(x_T))), x_T, draw):
        states[state.t] = state.x_t
        between()
    axis = torch.linspace(-REACH, REACH, SIDE, device=draw.device)
    where = torch.cartesian_prod(axis, axis)
    on_grid = p.given(told(len(where)))
    drift = [on_grid(where, at(max(t, 1), len(where))).step.mean - where for t in times]
    return drawing.plane(times, there, [states[t] for t in times], where, drift)
