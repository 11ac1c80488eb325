"""EDM at the schedule's noise levels, held against its own formulas, which are written out here in sigma."""

import math

import pytest
import torch
from oracle import OptimalNetwork
from scipy.stats import norm
from torch import nn

from ddpm.config.compose import compose
from ddpm.config.errors import RefusedError
from ddpm.diffusion.objective import MinSNR, Simple, Unweighted
from ddpm.diffusion.prediction import X0, Epsilon, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import cosine, linear
from ddpm.diffusion.timesteps import Timesteps
from ddpm.diffusion.variance import FixedLarge
from ddpm.edm import Balanced, LogNormal, Preconditioned
from ddpm.instantiate import instantiate
from ddpm.samplers.ddim import DDIM

T = 200
SIGMA_DATA = 0.35


class Network(nn.Module):
    """Some function of its input and of t, in float64."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.mix = torch.randn(6, 6, generator=draw, dtype=torch.float64)

    def forward(self, x, t_from_0):
        return torch.tanh(x @ self.mix + t_from_0[:, None] / 50)


def denoised(network, y, sigma, t):
    """D(y; sigma) = c_skip y + c_out F(c_in y); Karras et al. 2022, Eq. (7) and Table 1."""
    c_skip = SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)
    c_out = sigma * SIGMA_DATA / (sigma**2 + SIGMA_DATA**2).sqrt()
    c_in = 1 / (sigma**2 + SIGMA_DATA**2).sqrt()
    return c_skip * y + c_out * network(c_in * y, t - 1)


@pytest.fixture(params=[linear, cosine], ids=["linear", "cosine"])
def case(request):
    """At every t: a process, x_0, noise, and the same in sigma."""
    q, draw = ForwardProcess(request.param(T)), torch.Generator().manual_seed(1)
    x_0, noise = torch.randn(2, T, 6, generator=draw, dtype=torch.float64)
    t = torch.arange(1, T + 1)
    sigma = ((1 - q.alpha_bar[t]) / q.alpha_bar[t]).sqrt()[:, None]
    return q, x_0, noise, t, sigma


def process(q, prediction):
    return ReverseProcess(Network(), q, prediction, FixedLarge())


def test_the_estimate_is_the_denoiser_of_edm(case):
    q, x_0, noise, t, sigma = case
    p = process(q, Preconditioned(SIGMA_DATA))
    y = x_0 + sigma * noise
    x_t = q.diffuse(x_0, t, noise)
    torch.testing.assert_close(x_t, y * q.alpha_bar[t].sqrt()[:, None], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p(x_t, t).x_0, denoised(p.network, y, sigma, t), rtol=1e-9, atol=1e-12)


def test_the_loss_is_edm_s(case):
    q, x_0, noise, t, sigma = case
    p = process(q, Preconditioned(SIGMA_DATA))
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    expected = (weight * (denoised(p.network, x_0 + sigma * noise, sigma, t) - x_0) ** 2).mean(1)
    for objective in (Simple(), Simple(Balanced(SIGMA_DATA))):
        torch.testing.assert_close(objective(p, x_0, t, noise), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("prediction", [Epsilon(), X0(), Velocity()], ids=lambda p: type(p).__name__)
def test_the_weighting_is_of_x_0_whatever_is_predicted(case, prediction):
    q, x_0, noise, t, sigma = case
    p = process(q, prediction)
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    expected = (weight * (p(q.diffuse(x_0, t, noise), t).x_0 - x_0) ** 2).mean(1)
    torch.testing.assert_close(Simple(Balanced(SIGMA_DATA))(p, x_0, t, noise), expected, rtol=1e-9, atol=0)


def test_input_and_target_have_variance_1_at_every_t(case):
    q, _, noise, t, _ = case
    draw, prediction = torch.Generator().manual_seed(2), Preconditioned(SIGMA_DATA)
    t = t.repeat_interleave(3000)
    x_0, noise = torch.randn(2, len(t), 6, generator=draw, dtype=torch.float64)
    x_0 = SIGMA_DATA * x_0
    given = prediction.network_input(q, q.diffuse(x_0, t, noise), t)
    for each in (given, prediction.target(q, x_0, noise, t)):
        variance = each.reshape(T, -1).var(1)
        torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=6 * math.sqrt(2 / 18_000))


def test_with_sigma_data_1_it_is_the_velocity_backwards(case):
    q, x_0, noise, t, _ = case
    ours, velocity = Preconditioned(1.0), Velocity()
    torch.testing.assert_close(ours.target(q, x_0, noise, t), -velocity.target(q, x_0, noise, t))
    x_t = q.diffuse(x_0, t, noise)
    torch.testing.assert_close(ours.network_input(q, x_t, t), x_t)
    torch.testing.assert_close(ours.x_0(q, -noise, x_t, t), velocity.x_0(q, noise, x_t, t))


class Unscaled(nn.Module):
    """A network of x_t that is given x_t / sqrt(Var[x_t])."""

    def __init__(self, network, q):
        super().__init__()
        self.network, self.q = network, q

    def forward(self, given, t_from_0):
        a = self.q.alpha_bar[t_from_0 + 1][:, None]
        return self.network(given * (a * SIGMA_DATA**2 + 1 - a).sqrt(), t_from_0)


def test_the_optimal_network_samples_as_that_of_epsilon():
    q, x_T = ForwardProcess(linear(T)), torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    made = []
    for prediction in (Epsilon(), Preconditioned(SIGMA_DATA)):
        best = OptimalNetwork(q, prediction, FixedLarge(), 0.3, 0.25)
        network = Unscaled(best, q) if isinstance(prediction, Preconditioned) else best
        *_, last = DDIM(20)(ReverseProcess(network, q, prediction, FixedLarge()), x_T, torch.Generator(), clip=False)
        made.append(last.x_t)
    torch.testing.assert_close(*made, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_noise_levels_are_log_normal(schedule):
    timesteps, n = LogNormal(schedule(T), P_mean=-1.0, P_std=1.5), 200_000
    t, weight = timesteps.sample(n, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64
    assert bool((weight == 1).all())
    alpha_bar = ForwardProcess(schedule(T)).alpha_bar[1:]
    log_sigma = ((1 - alpha_bar) / alpha_bar).log() / 2
    middle = (log_sigma[1:] + log_sigma[:-1]) / 2
    mass = torch.tensor(norm.cdf(middle, -1.0, 1.5))
    mass = torch.cat([mass, mass.new_ones(1)]) - torch.cat([mass.new_zeros(1), mass])
    share = torch.bincount(t, minlength=T + 1)[1:] / n
    assert share.sum() == pytest.approx(1)
    torch.testing.assert_close(share.double(), mass, rtol=0, atol=5 * math.sqrt(0.25 / n))
    assert float((share.double() - mass).square().sum()) < 3 / n  # its mean is less than 1 / n


def test_the_noise_levels_are_those_of_the_paper_if_nothing_is_said():
    """Table 1 of Karras et al. 2022: log(sigma) has the mean -1.2 and the deviation 1.2."""
    t, _ = LogNormal(linear(T)).sample(1000, torch.Generator().manual_seed(0))
    expected, _ = LogNormal(linear(T), P_mean=-1.2, P_std=1.2).sample(1000, torch.Generator().manual_seed(0))
    assert torch.equal(t, expected)


@pytest.mark.parametrize("weighting", [Unweighted(), MinSNR(), Balanced()], ids=lambda w: type(w).__name__)
def test_a_weighting_is_uniform_if_it_says_so(weighting, case):
    weight = weighting(process(case[0], Epsilon()), torch.arange(1, T + 1))
    assert weighting.uniform == bool((weight == weight[0]).all())


def test_draws_depend_on_the_generator_only_and_nothing_is_kept():
    timesteps, before = LogNormal(linear(T)), torch.get_rng_state()
    first, again, other = (timesteps.sample(9, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert not timesteps.state_dict()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_what_cannot_be_is_refused(bad):
    for make in (Preconditioned, Balanced, lambda P_std: LogNormal(linear(T), P_std=P_std)):
        with pytest.raises(ValueError, match="must be a positive number"):
            make(bad)


def test_the_options_are_built_on_the_schedule_that_is_chosen():
    noise = ["schedule=cosine", "schedule.T=100", "schedule.snr_scale=2.0"]
    config = compose(["timesteps=lognormal", *noise, "prediction=edm", "weighting=edm"])
    timesteps = instantiate(config.timesteps, Timesteps)
    assert torch.equal(timesteps.edges, LogNormal(cosine(100, snr_scale=2.0)).edges)


@pytest.mark.parametrize("objective", [["objective=vlb"], ["objective=hybrid", "variance=learned_range"]])
def test_the_bound_is_not_trained_at_a_density_of_noise_levels(objective):
    with pytest.raises(RefusedError, match=r"use timesteps=loss_second_moment or timesteps=uniform, or "):
        compose(["timesteps=lognormal", *objective])
