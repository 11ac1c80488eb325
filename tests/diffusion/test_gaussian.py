import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from ddpm.diffusion.gaussian import Gaussian, noise_like, standard_normal

means = st.floats(-3, 3)
log_vars = st.floats(-12, 4)


def gaussian(mean, log_var):
    return Gaussian(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[log_var]], dtype=torch.float64))


def normal(g):
    return Normal(g.mean, (0.5 * g.log_var).exp())


@given(means, log_vars, means, log_vars)
def test_kl_is_that_of_torch_distributions(m1, v1, m2, v2):
    a, b = gaussian(m1, v1), gaussian(m2, v2)
    torch.testing.assert_close(a.kl(b), kl_divergence(normal(a), normal(b)), rtol=1e-9, atol=1e-9)


@given(means, log_vars, means, log_vars)
def test_kl_is_not_negative_and_0_for_equals(m1, v1, m2, v2):
    a, b = gaussian(m1, v1), gaussian(m2, v2)
    assert a.kl(b).item() >= -1e-12
    assert a.kl(a).item() == 0


def test_kl_keeps_its_digits_in_float32_where_variances_nearly_agree():
    d = 4e-5  # KL = (exp(d) - 1 - d) / 2 = d^2 / 4
    nearly = Gaussian(torch.zeros(1, 1), torch.full((1, 1), d))
    assert nearly.kl(standard_normal(nearly.mean)).item() == pytest.approx(d**2 / 4, rel=1e-2)


@given(means, log_vars, means)
def test_log_prob_is_that_of_torch_distributions(m, v, x):
    g, x = gaussian(m, v), torch.tensor([[x]], dtype=torch.float64)
    torch.testing.assert_close(g.log_prob(x), normal(g).log_prob(x), rtol=1e-9, atol=1e-9)


def test_sample_is_mean_plus_std_times_noise():
    g = gaussian(1.0, math.log(4.0))
    assert g.sample(torch.tensor([[0.5]], dtype=torch.float64)).item() == pytest.approx(2.0)
    point = gaussian(1.0, -math.inf)
    assert point.sample(torch.tensor([[0.5]], dtype=torch.float64)).item() == 1.0


def test_noise_depends_on_generator_and_shape_only():
    torch.manual_seed(0)
    a = noise_like(torch.zeros(3, 2, 4), torch.Generator().manual_seed(7))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    b = noise_like(torch.ones(3, 4, 2).transpose(1, 2), torch.Generator().manual_seed(7))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_is_drawn_where_the_generator_lives():
    generator, again = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    noise = noise_like(torch.zeros(3, 2, device="meta"), generator)
    assert noise.device.type == "meta"  # where x is
    torch.randn(3, 2, generator=again)
    assert torch.equal(generator.get_state(), again.get_state())
