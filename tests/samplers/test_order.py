"""What is known of each sampler in closed form: how it nears the ODE's solution, and the law of its samples."""

import math

import pytest
import torch
from oracle import optimal

from ddpm.diffusion.prediction import X0, Epsilon
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedSmall
from ddpm.samplers.deis import DEIS
from ddpm.samplers.dpm_solver import DPMSolver, DPMSolver2S
from ddpm.samplers.heun import Heun
from ddpm.samplers.sa_solver import SASolver

MEAN, STD = 0.3, 0.25


def error(sampler, T=4000):
    """At t = 1, from the probability flow of Gaussian data."""
    q = ForwardProcess(linear(T, rescale=True))
    x_T = torch.randn(20, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a_T, a_1 = q.alpha_bar[T], q.alpha_bar[1]
    std_T, std_1 = ((a * STD**2 + 1 - a).sqrt() for a in (a_T, a_1))
    exact = a_1.sqrt() * MEAN + std_1 / std_T * (x_T - a_T.sqrt() * MEAN)
    states = sampler(optimal(q, X0(), FixedSmall(), MEAN, STD), x_T, torch.Generator(), clip=False)
    *_, at_1 = (state.x_t for state in states if state.t == 1)
    return (at_1 - exact).abs().max().item()


@pytest.mark.parametrize(
    ("of_n_steps", "order"),
    [
        (lambda n: DPMSolver2S(n + 1, "log_snr"), 2),
        (lambda n: Heun(n + 1), 2),
        (lambda n: DEIS(n, 1), 2),
        (lambda n: DEIS(n, 2), 3),
        (lambda n: DEIS(n, 3, "log_snr"), 4),
        (lambda n: SASolver(n, 1, 0, 0.0), 1),
        (lambda n: SASolver(n, 2, 0, 0.0), 2),
        (lambda n: SASolver(n, 2, 3, 0.0), 3),
    ],
    ids=["2S", "Heun", "DEIS 1", "DEIS 2", "DEIS 3", "SA 1", "SA 2", "SA 2, corrected"],
)
def test_each_is_of_its_order(of_n_steps, order):
    assert math.log2(error(of_n_steps(40)) / error(of_n_steps(80))) == pytest.approx(order, abs=0.4)


def test_a_third_estimate_makes_dpm_solver_nearer():
    assert error(DPMSolver(40, 3, spacing="log_snr")) < 0.5 * error(DPMSolver(40, 2, spacing="log_snr"))


@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (DPMSolver(20, 2, 1.0), 0.01),
        (DPMSolver(60, 3, 1.0), 0.01),
        (DPMSolver(20, 3, 0.5), 0.01),
        (DPMSolver2S(20), 0.02),
        (DEIS(20), 0.01),
        (Heun(40), 0.02),
        (Heun(40, S_churn=10.0), 0.02),
        (SASolver(20, S_min=0.0, S_max=None), 0.02),
        (SASolver(20, 3, 4, 0.5), 0.02),
    ],
    ids=lambda value: getattr(value, "label", ""),
)
def test_the_optimal_network_samples_the_data(sampler, tolerance):
    p = optimal(ForwardProcess(linear(100, rescale=True)), Epsilon(), FixedSmall(), MEAN, STD)
    x_T = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
    *_, last = sampler(p, x_T, torch.Generator().manual_seed(2))
    assert last.x_t.mean().item() == pytest.approx(MEAN, abs=0.008)
    assert last.x_t.std().item() == pytest.approx(STD, abs=tolerance)
