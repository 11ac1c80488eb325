"""Every schedule x prediction x variance x objective: one optimizer step, or a refusal with a reason that holds."""

from itertools import product

import pytest
import torch

from ddpm.diffusion import schedule as S
from ddpm.diffusion.objective import Hybrid, MinSNR, Simple, Vlb
from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned, LearnedRange
from ddpm.networks.mlp import MLP
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.dpm_solver import DPMSolver

SCHEDULES = [S.linear, S.quadratic, S.constant, S.warmup10, S.warmup50, S.jsd, S.cosine, S.sigmoid]
PREDICTIONS = [Epsilon(), Mu(), X0(), Velocity()]
VARIANCES = [FixedLarge(), FixedSmall(), Learned(), LearnedRange()]
OBJECTIVES = [Simple(), Simple(MinSNR()), Vlb(), Hybrid()]
T = 50


def name(argument):
    return argument.__name__ if callable(argument) and hasattr(argument, "__name__") else type(argument).__name__


def refused(variance, objective):
    """`simple` would leave a learned variance untrained; `hybrid` adds only a constant to a fixed one."""
    return (isinstance(objective, Simple) and variance.learned) or (
        isinstance(objective, Hybrid) and not variance.learned
    )


def model(schedule, prediction, variance):
    torch.manual_seed(0)
    network = MLP(2, 4 if variance.learned else 2, channels=8, num_res_blocks=1)
    return ReverseProcess(network, ForwardProcess(schedule(T)), prediction, variance)


def gradients(p, objective):
    g = torch.Generator().manual_seed(1)
    x_0 = (torch.rand(T, 2, generator=g) * 255).round() / 127.5 - 1
    loss = objective(p, x_0, torch.arange(1, T + 1), torch.randn(T, 2, generator=g))
    assert loss.shape == (T,)
    assert bool(loss.isfinite().all())
    p.zero_grad()
    loss.mean().backward()
    return [parameter.grad.clone() for parameter in p.parameters()]


CELLS = [cell for cell in product(SCHEDULES, PREDICTIONS, VARIANCES, OBJECTIVES) if not refused(*cell[2:])]


@pytest.mark.parametrize(("schedule", "prediction", "variance", "objective"), CELLS, ids=name)
@pytest.mark.long
def test_every_cell_trains(schedule, prediction, variance, objective):
    p = model(schedule, prediction, variance)
    optimizer = torch.optim.Adam(p.parameters(), 1e-3)
    for gradient in gradients(p, objective):
        assert bool(gradient.isfinite().all())
        assert bool(gradient.any())
    optimizer.step()
    for parameter in p.parameters():
        assert bool(parameter.isfinite().all())


@pytest.mark.parametrize("variance", [Learned(), LearnedRange()], ids=name)
def test_simple_gives_a_learned_variance_no_gradient(variance):
    *_, weight, bias = gradients(model(S.linear, Epsilon(), variance), Simple())
    assert not weight[2:].any()
    assert not bias[2:].any()


@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall()], ids=name)
def test_hybrid_is_simple_if_the_variance_is_fixed(variance):
    p = model(S.linear, Epsilon(), variance)
    for hybrid, simple in zip(gradients(p, Hybrid()), gradients(p, Simple()), strict=True):
        torch.testing.assert_close(hybrid, simple)


@pytest.mark.parametrize("variance", VARIANCES, ids=name)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.long
def test_every_cell_samples(schedule, prediction, variance):
    p = model(schedule, prediction, variance)
    for sampler in (Ancestral(4), DDIM(4, 0.5), DPMSolver(4)):
        *_, state = sampler(p, torch.randn(3, 2), torch.Generator().manual_seed(0))
        assert state.t == 0
        assert bool(state.x_t.isfinite().all())
