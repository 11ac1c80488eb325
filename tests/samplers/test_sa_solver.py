import math

import pytest
import torch
from diffusers import SASolverScheduler
from peer_samplers import SIGMA, Q, Wavy, rng, states, theirs, x_T

from ddpm.config.compose import compose
from ddpm.diffusion.prediction import X0
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedSmall
from ddpm.samplers.sa_solver import SASolver

LIMITS = {"S_min": 0.2, "S_max": 3.0}  # six of the nine steps below begin between them


class PlainSASolver(SASolverScheduler):
    """The paper's coefficients: its authors' code adds a term of a higher order to those of two estimates."""

    def get_coefficients_fn(self, order, interval_start, interval_end, lambda_list, tau):
        coefficients = super().get_coefficients_fn(order, interval_start, interval_end, lambda_list, tau)
        if order == 2:
            h, rate = interval_end - interval_start, 1 + tau**2
            added = torch.exp(rate * interval_end) * (h**2 / 2 - (h * rate - 1 + torch.exp(-rate * h)) / rate**2)
            added = added / (lambda_list[0] - lambda_list[1])
            coefficients = [coefficients[0] - added, coefficients[1] + added]
        return coefficients


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers', of numpy 2
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(("order", "corrector"), [(1, 1), (1, 2), (2, 2), (2, 3), (3, 2), (3, 4)])
def test_it_is_what_diffusers_does_up_to_the_last_step(order, corrector, tau):
    """To the last of which ours goes by the estimate of x_0, where half the log SNR is infinite."""
    sampler = SASolver(9, order, corrector, tau, **LIMITS)
    scheduler = PlainSASolver(
        1000, beta_start=1e-4, beta_end=0.02, prediction_type="sample", predictor_order=order,
        corrector_order=corrector, lower_order_final=False,
        tau_func=lambda t: tau if LIMITS["S_min"] <= SIGMA[int(t) + 1] <= LIMITS["S_max"] else 0.0,
    )  # fmt: skip
    expected, found = theirs(scheduler, sampler.steps(Q), x_T(), generator=rng()), states(sampler, x_T())
    for k, (ours, want) in enumerate(zip(found[:8], expected, strict=False)):
        torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5, msg=f"step {k}")


def test_all_steps_of_one_estimate_with_all_noise_are_the_ancestral_chain():
    p = ReverseProcess(Wavy(), ForwardProcess(linear(100, rescale=True)), X0(), FixedSmall())
    samplers = SASolver(100, 1, 0, S_min=0.0, S_max=None, spacing="uniform"), Ancestral()
    ours, want = ([state.x_t for state in sampler(p, x_T(), rng())] for sampler in samplers)
    torch.testing.assert_close(ours, want, rtol=1e-9, atol=1e-9)


def test_a_corrector_changes_the_states_that_are_left_behind_alone():
    """The last state is an estimate, made at a corrected x_t; the first was predicted from one estimate either way."""
    plain, corrected = (states(SASolver(9, 1, corrector, 0.0), x_T()) for corrector in (0, 2))
    assert torch.equal(plain[0], corrected[0])
    assert not torch.allclose(plain[1], corrected[1])


def test_noise_is_added_between_the_limits_alone():
    sampler = SASolver(9, **LIMITS)
    of_ode = states(SASolver(9, tau=0.0), x_T())
    above = sum(SIGMA[t] > LIMITS["S_max"] for t in sampler.steps(Q))
    alike = [torch.equal(a, b) for a, b in zip(states(sampler, x_T()), of_ode, strict=True)]
    assert alike == [True] * above + [False] * (9 - above)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"order": 4}, "order=4 is not one of 1, 2, 3"),
        ({"corrector": 5}, "corrector=5 is not one of 0, 1, 2, 3, 4"),
        ({"tau": -0.1}, "tau=-0.1 must be a number of at least 0"),
        ({"tau": math.nan}, "tau=nan must be"),
        ({"steps": 2}, "steps=2 must be at least 3, for this order"),
        ({"steps": 3, "corrector": 4}, "steps=3 must be at least 4, for this order"),
        ({"S_min": 2.0}, "the first below the second"),
        ({"S_min": -0.1}, "S_min=-0.1 and S_max=2.0 must be limits of sigma"),
    ],
)
def test_what_there_is_not(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        SASolver(**settings)


def test_limits_outside_of_the_schedule():
    with pytest.raises(ValueError, match=r"whose sigma goes from 0\.01 to 157"):
        SASolver(S_min=200.0, S_max=None).steps(Q)


def test_it_is_an_option_of_the_command_line():
    config = compose(["sampler=sa_solver", "sampler.order=3"], "evaluate")
    assert (config.sampler.steps, config.sampler.order, config.sampler.tau) == (10, 3, 1.0)
