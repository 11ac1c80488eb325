from types import SimpleNamespace

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ddpm.diffusion.process import ForwardProcess, expand
from ddpm.diffusion.schedule import constant, cosine, linear

T = 1000
q = ForwardProcess(linear(T))
literal = reference.Process(reference.linear(T))
times = st.integers(1, T)


def at(*times):
    return torch.tensor(times)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_table_of_the_linear_schedule():
    assert q.alpha_bar.shape == (T + 1,)
    assert q.alpha_bar[0] == 1
    torch.testing.assert_close(q.alpha_bar, vector(*literal.alpha_bar), rtol=1e-12, atol=0)
    anchors = {1: 0.9999, 250: 0.52408537, 500: 0.07858724, 750: 0.00335055}
    for t, value in anchors.items():
        assert q.alpha_bar[t].item() == pytest.approx(value, rel=1e-6)
    assert q.alpha_bar[1000].item() == pytest.approx(4.035829765375676e-05, rel=1e-12)


def test_beta_tilde_of_the_linear_schedule():
    got = q.beta_tilde(at(1, 2, 3, 4), at(0, 1, 2, 3))
    torch.testing.assert_close(got, vector(0, 5.45318766e-05, 8.54891152e-05, 1.10639522e-04), rtol=1e-8, atol=0)
    assert got[1].log().item() == pytest.approx(-9.81672513529567, abs=1e-10)
    assert q.beta(at(2), at(1)).log().item() == pytest.approx(-9.028686, abs=1e-6)
    got = q.beta_tilde(at(488, 1000), at(487, 999))
    torch.testing.assert_close(got, vector(0.00979, 0.02), rtol=0, atol=1e-5)


def test_posterior_weights_of_the_linear_schedule():
    on_x_0, on_x_t = q.posterior_weights(at(1, 2, 3), at(0, 1, 2), vector(0, 0, 0))
    torch.testing.assert_close(on_x_0, vector(1, 0.5452915, 0.3887068), rtol=0, atol=1e-7)
    torch.testing.assert_close(on_x_t, vector(0, 0.4547085, 0.6112932), rtol=0, atol=1e-7)


@given(t=times, x_0=st.floats(-1, 1), x_t=st.floats(-4, 4))
def test_posterior_is_the_literal_transcription(t, x_0, x_t):
    got = q.posterior(vector(x_0)[:, None], vector(x_t)[:, None], at(t))
    assert got.mean.item() == pytest.approx(literal.mu_tilde(x_t, x_0, t), abs=1e-12)
    assert got.log_var.exp().item() == pytest.approx(literal.beta_tilde(t), rel=1e-9)


@given(t=times, x_0=st.floats(-1, 1), noise=st.floats(-4, 4))
def test_diffuse_is_the_literal_transcription(t, x_0, noise):
    got = q.diffuse(vector(x_0)[:, None], at(t), vector(noise)[:, None])
    assert got.item() == pytest.approx(literal.diffuse(x_0, t, noise), abs=1e-12)


@given(times=st.lists(st.integers(0, T), min_size=3, max_size=3, unique=True), x_0=st.floats(-1, 1))
def test_posteriors_compose(times, x_0):
    """q(x_r | x_s, x_0) averaged over q(x_s | x_t, x_0) is q(x_r | x_t, x_0)."""
    r, s, t = sorted(times)
    x_0, x_t = vector(x_0)[:, None], vector(0.7)[:, None]
    first = q.posterior(x_0, x_t, at(t), at(s))
    second = q.posterior(x_0, first.mean, at(s), at(r))
    _, gain = q.posterior_weights(at(s), at(r), vector(0))
    direct = q.posterior(x_0, x_t, at(t), at(r))
    torch.testing.assert_close(second.mean, direct.mean, rtol=0, atol=1e-9)
    variance = second.log_var.exp() + gain**2 * first.log_var.exp()
    torch.testing.assert_close(variance, direct.log_var.exp(), rtol=1e-9, atol=1e-15)


@given(times=st.lists(st.integers(1, T), min_size=2, max_size=2, unique=True))
def test_any_two_times_are_a_step_of_the_respaced_process(times):
    s, t = sorted(times)
    respaced = reference.Process(reference.respaced(reference.linear(T), [s, t]))
    assert q.beta(at(t), at(s)).item() == pytest.approx(respaced.beta[2], rel=1e-9)
    assert q.beta_tilde(at(t), at(s)).item() == pytest.approx(respaced.beta_tilde(2), rel=1e-9)
    mean = q.posterior(vector(0.3)[:, None], vector(-1.2)[:, None], at(t), at(s)).mean
    assert mean.item() == pytest.approx(respaced.mu_tilde(-1.2, 0.3, 2), abs=1e-9)


@given(t=times)
def test_posterior_at_0_is_the_point_x_0(t):
    x_0, x_t = torch.randn(1, 3), torch.randn(1, 3)
    point = q.posterior(x_0, x_t, at(t), at(0))
    assert torch.equal(point.mean, x_0)
    assert torch.equal(point.sample(torch.randn(1, 3)), x_0)


@given(t=times, s_below=st.floats(0, 1, exclude_max=True), eta=st.floats(0, 1))
def test_the_implicit_posterior_keeps_the_marginals(t, s_below, eta):
    """x_s is distributed as q(x_s | x_0) whatever eta; Song et al. 2021, Lemma 1."""
    s, x_0 = int(s_below * t), vector(0.3)[:, None]
    a_t, a_s = q.alpha_bar[t], q.alpha_bar[s]
    at_the_mean = q.implicit_posterior(x_0, a_t.sqrt() * x_0, at(t), at(s), eta)
    one_std_off = q.implicit_posterior(x_0, a_t.sqrt() * x_0 + (1 - a_t).sqrt(), at(t), at(s), eta)
    torch.testing.assert_close(at_the_mean.mean, a_s.sqrt() * x_0, rtol=1e-9, atol=1e-12)
    variance = (one_std_off.mean - at_the_mean.mean).square() + at_the_mean.log_var.exp()
    torch.testing.assert_close(variance, (1 - a_s).reshape(1, 1), rtol=1e-9, atol=1e-15)


def test_the_implicit_posterior_has_eta_times_the_deviation():
    x, t, s = vector(0.3)[:, None], at(500), at(250)
    half, whole = (q.implicit_posterior(x, x, t, s, eta).log_var.exp() for eta in (0.5, 1.0))
    torch.testing.assert_close(half, whole / 4)
    assert q.implicit_posterior(x, x, t, s, 0.0).log_var.exp() == 0


@given(t=times, s_below=st.floats(0, 1, exclude_max=True))
def test_the_implicit_posterior_with_eta_1_is_the_posterior(t, s_below):
    s, x_0, x_t = int(s_below * t), vector(0.3)[:, None], vector(-0.9)[:, None]
    got, want = q.implicit_posterior(x_0, x_t, at(t), at(s), 1.0), q.posterior(x_0, x_t, at(t), at(s))
    torch.testing.assert_close(got.mean, want.mean, rtol=0, atol=1e-9)
    assert torch.equal(got.log_var, want.log_var)


@pytest.mark.parametrize("schedule", [linear, constant, cosine])
def test_snr_falls(schedule):
    process = ForwardProcess(schedule(T))
    snr = process.snr(torch.arange(1, T + 1))
    assert bool((snr.diff() < 0).all())
    torch.testing.assert_close(snr[0], process.alpha_bar[1] / (1 - process.alpha_bar[1]))


def test_prior_is_the_marginal_at_T():
    x_0 = vector(0.3, -0.8)[:, None]
    prior = q.prior(x_0)
    noise = vector(1, 1)[:, None]
    torch.testing.assert_close(prior.sample(noise), q.diffuse(x_0, at(T, T), noise))


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16, torch.float32])
def test_the_table_keeps_its_dtype(narrow):
    parent = nn.ModuleList([ForwardProcess(linear(10)), nn.Linear(1, 1)]).to(narrow)
    assert parent[0].alpha_bar.dtype == torch.float64
    assert parent[1].weight.dtype == narrow
    assert parent[0].signal(at(3), torch.zeros(1, 1)).dtype == torch.float32


def test_the_table_follows_the_module_but_not_to_mps():
    process = ForwardProcess(linear(10))
    process._apply(lambda _: SimpleNamespace(device=torch.device("mps")))
    assert process.alpha_bar.device.type == "cpu"
    assert ForwardProcess(linear(10)).to("meta").alpha_bar.device.type == "meta"


def test_the_table_is_not_in_the_checkpoint():
    assert not ForwardProcess(linear(10)).state_dict()


def test_coefficients_are_cast_only_when_they_meet_the_data():
    x = torch.zeros(2, 3, 4, 4)
    got = expand(vector(1, 2), x)
    assert (got.shape, got.dtype) == ((2, 1, 1, 1), torch.float32)
    # in float32, 1 - alpha_bar_1 would be 1.00017e-4
    assert q.noise_scale(at(1), torch.zeros(1, 1)).item() == pytest.approx(0.01, rel=1e-7)


@pytest.mark.parametrize(
    "betas",
    [[0.1], [0.1, 0.0], [0.1, 1.0], [0.1, -0.1], [0.1, float("nan")], [1e-17, 1e-17], [0.9] * 400],
)
def test_refuses_betas_without_a_process(betas):
    with pytest.raises(ValueError, match="alpha_bar must fall strictly"):
        ForwardProcess(vector(*betas))
