"""Each sampler is held against the reference implementation of its paper, in float64."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler
from peer_samplers import SIGMA, Q, Wavy, rng, states, theirs, x_T
from scipy.integrate import quad

from ddpm.samplers.ddim import DDIM
from ddpm.samplers.deis import DEIS
from ddpm.samplers.dpm_solver import DPMSolver, DPMSolver2S
from ddpm.samplers.heun import Heun
from ddpm.samplers.sa_solver import SASolver
from ddpm.samplers.unipc import UniPC

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers', of numpy 2
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
TO_FLOAT = {"rtol": 1e-5, "atol": 1e-5}  # diffusers steps in float32
SCHEDULE = {"beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "sample", "final_sigmas_type": "zero"}


@pytest.mark.parametrize(("order", "eta"), [(2, 0.0), (3, 0.0), (2, 1.0)])
def test_dpm_solver_is_what_diffusers_does(order, eta):
    """Theirs lowers the order of the last steps but one, ours does not; both end with the estimate."""
    sampler, x = DPMSolver(9, order, eta, "karras"), x_T()
    kind = "sde-dpmsolver++" if eta else "dpmsolver++"
    scheduler = DPMSolverMultistepScheduler(1000, solver_order=order, algorithm_type=kind, **SCHEDULE)
    expected, found = theirs(scheduler, sampler.steps(Q), x, generator=rng()), states(sampler, x)
    alike = 9 if order == 2 else 7
    for k, (ours, want) in enumerate(zip(found[:alike], expected, strict=False)):
        torch.testing.assert_close(ours, want, **TO_FLOAT, msg=f"step {k}")


def dpmpp_3m_sde(x, sigmas, times, eta, draw):
    """sample_dpmpp_3m_sde of k-diffusion, whose second step is that of its sample_dpmpp_2m_sde here."""
    denoised_1, denoised_2, h_1, h_2 = None, None, None, None
    for i, (now, then) in enumerate(pairwise(sigmas)):
        denoised = Wavy()(x / (1 + now**2).sqrt(), torch.full((len(x),), times[i] - 1))
        h = now.log() - then.log()
        h_eta = h * (eta + 1)
        x = torch.exp(-h_eta) * x + (-h_eta).expm1().neg() * denoised
        if h_2 is not None:
            r0, r1 = h_1 / h, h_2 / h
            d1_0, d1_1 = (denoised - denoised_1) / r0, (denoised_1 - denoised_2) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            phi_2 = h_eta.neg().expm1() / h_eta + 1
            phi_3 = phi_2 / h_eta - 0.5
            x = x + phi_2 * d1 - phi_3 * d2
        elif h_1 is not None:
            x = x + 0.5 * (-h_eta).expm1().neg() * (h / h_1) * (denoised - denoised_1)
        noise = torch.randn(x.shape, generator=draw, dtype=x.dtype)
        x = x + noise * then * (-2 * h * eta).expm1().neg().sqrt()
        denoised_1, denoised_2, h_1, h_2 = denoised, denoised_1, h, h_1
    return x


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_weights_of_order_3_are_means_over_the_step(eta):
    """By quadrature: a step that keeps the share e^-h of x_t / sqrt(alpha_bar) weighs what is at u by e^(h u)."""
    t, s = torch.tensor([700]), torch.tensor([450])
    kept = Q.implicit_posterior(torch.zeros(1, 1), torch.ones(1, 1), t, s, eta).mean.double()
    h = -(kept * (Q.alpha_bar[t] / Q.alpha_bar[s]).sqrt()).log().item()
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    weight = torch.exp(h * u) / torch.exp(h * u).sum()
    log_snr = (Q.snr(s) / Q.snr(t)).log() / 2
    got = DPMSolver(9, 3, eta)._weights(Q, t, s, log_snr)
    for ours, want in zip(got, ((weight * u).sum(), (weight * u**2 / 2).sum()), strict=True):
        assert ours.item() == pytest.approx(want.item(), rel=1e-6)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_solver_of_order_3_is_what_k_diffusion_does(eta):
    """Its x is x_t / sqrt(alpha_bar_t). Between 0 and 1 its eta means another noise than DDIM's."""
    times = DPMSolver(9, 3, spacing="karras").steps(Q)
    want = dpmpp_3m_sde(x_T() / Q.alpha_bar[1000].sqrt(), SIGMA[times], times, eta, rng())
    found = states(DPMSolver(9, 3, eta, "karras"), x_T())[-2]
    torch.testing.assert_close(found / Q.alpha_bar[1].sqrt(), want, **CLOSE)


@pytest.mark.parametrize("steps", [8, 9])
def test_single_steps_are_what_diffusers_does(steps):
    sampler, x = DPMSolver2S(steps, "log_snr"), x_T()
    scheduler = DPMSolverSinglestepScheduler(1000, solver_order=2, lower_order_final=True, **SCHEDULE)
    expected = theirs(scheduler, sampler.steps(Q), x)
    for k, (ours, want) in enumerate(zip(states(sampler, x), expected, strict=True)):
        torch.testing.assert_close(ours, want, **TO_FLOAT, msg=f"step {k}")


class RoundedNet:
    """A network of NVlabs/edm's kind, which knows the sigmas of a table alone."""

    def round_sigma(self, sigma):
        return SIGMA[1:][(SIGMA[1:] - sigma).abs().argmin()]

    def __call__(self, x, sigma):
        t = int((SIGMA - sigma).abs().argmin())
        return Wavy()(x / (1 + sigma**2).sqrt(), torch.full((len(x),), t - 1))


def edm_sampler(net, x, t_steps, draw, S_churn, S_min, S_max, S_noise):
    """Algorithm 2 as NVlabs/edm's generate.py has it; x has noise of deviation t_steps[0]."""
    num_steps, t_steps = len(t_steps), [*t_steps, torch.zeros(())]
    for i, (t_cur, t_next) in enumerate(pairwise(t_steps)):
        gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= t_cur <= S_max else 0
        t_hat = net.round_sigma(t_cur + gamma * t_cur)
        noise = torch.randn(x.shape, generator=draw, dtype=x.dtype) if i else 0  # none is left to add at sigma_max
        x_hat = x + (t_hat**2 - t_cur**2).clamp(min=0).sqrt() * S_noise * noise
        d_cur = (x_hat - net(x_hat, t_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d_cur
        if i < num_steps - 1:
            torch.randn(x.shape, generator=draw, dtype=x.dtype)  # ours draws for every evaluation
            d_prime = (x - net(x, t_next)) / t_next
            x = x_hat + (t_next - t_hat) * (d_cur + d_prime) / 2
    return x


@pytest.mark.parametrize("churn", [(0.0, 0.0, None, 1.0), (2.0, 0.0, None, 1.0), (40.0, 0.05, 50.0, 1.003)])
def test_heun_is_what_nvlabs_does(churn):
    sampler, x = Heun(15, *churn), x_T()
    nodes = Heun(15).steps(Q)[::2]
    assert len(sampler.steps(Q)) == 15
    S_churn, S_min, S_max, S_noise = churn
    start = x / Q.alpha_bar[1000].sqrt()
    expected = edm_sampler(RoundedNet(), start, SIGMA[nodes], rng(), S_churn, S_min, S_max or math.inf, S_noise)
    torch.testing.assert_close(states(sampler, x)[-1], expected, **CLOSE)


def test_an_even_number_of_heun_s_steps_leaves_the_last_correction_out():
    assert Heun(4).steps(Q) == Heun(5).steps(Q)[:4]
    *_, before, last = states(Heun(4), x_T())
    torch.testing.assert_close(last, Wavy()(before, torch.zeros(5)))


def test_heun_s_noise_is_added_up_to_the_nearest_sigma_of_the_table_the_first_among_them():
    times = [1000, 990, 300, 4]
    found = Heun(None, S_churn=40.0, times=times).steps(Q)
    grown = math.sqrt(2) * SIGMA[times[1:]]
    assert found[::2] == [1000, *(SIGMA[:, None] - grown).abs().argmin(0).tolist()]
    assert found[1::2] == times[1:]
    assert found[2] == 1000


@pytest.mark.parametrize(
    "sampler",
    [
        *(DPMSolver(9), DPMSolver(9, 3, 1.0), DPMSolver2S(8), DPMSolver2S(9), DEIS(9, 1), DEIS(9), UniPC(9, 3)),
        *(SASolver(9), SASolver(9, tau=0.0), Heun(9), DDIM(9, 1.0)),
    ],
    ids=lambda sampler: f"{sampler.label}, {sampler.num_steps}",
)
def test_a_chain_ends_with_the_estimate_that_is_made_at_its_last_state(sampler):
    """The last step goes to infinite SNR, where x_t is x_0: no solver goes beyond the network's estimate."""
    *_, before, last = states(sampler, x_T())
    torch.testing.assert_close(last, Wavy()(before, torch.full((5,), sampler.steps(Q)[-1] - 1)), **CLOSE)


def coefficient(times, j, s):
    """C_ij as jax_deis has it: psi(tau, s) times the integrand of epsilon times the polynomial, of linear alpha_bar."""
    table = Q.alpha_bar.numpy()

    def integrand(tau):
        k = min(int(tau), len(table) - 2)
        alpha, slope = np.interp(tau, [k, k + 1], table[k : k + 2]), table[k + 1] - table[k]
        polynomial = math.prod((tau - other) / (times[j] - other) for other in times if other != times[j])
        return math.sqrt(table[s] / alpha) * -0.5 * slope / alpha / math.sqrt(1 - alpha) * polynomial

    edges = range(s, times[0] + 1)
    return sum(quad(integrand, b, a, epsrel=1e-12)[0] for a, b in pairwise(edges))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_the_formula_of_its_code(order):
    times = [1000, 640, 360, 160, 40, 1]
    x = x_T()
    found, noises, visited = states(DEIS(None, order, times=times), x), [], []
    for k, (t, s) in enumerate(pairwise(times)):
        a = Q.alpha_bar[t]
        visited.insert(0, t)
        noises.insert(0, (x - a.sqrt() * Wavy()(x, torch.full((5,), t - 1))) / (1 - a).sqrt())
        del visited[order + 1 :], noises[order + 1 :]
        x = (Q.alpha_bar[s] / a).sqrt() * x
        x = x + sum(coefficient(visited, j, s) * noise for j, noise in enumerate(noises))
        torch.testing.assert_close(found[k], x, **CLOSE, msg=f"step {k}")
