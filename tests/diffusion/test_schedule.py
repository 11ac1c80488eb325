import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.diffusion import schedule as S
from ddpm.diffusion.process import ForwardProcess

EVERY = [S.linear, S.quadratic, S.constant, S.warmup10, S.warmup50, S.jsd, S.cosine, S.sigmoid]
WITH_ENDPOINTS = [S.linear, S.quadratic, S.warmup10, S.warmup50, S.sigmoid]
LITERAL = {
    S.linear: reference.linear,
    S.quadratic: reference.quadratic,
    S.constant: reference.constant,
    S.warmup10: lambda T: reference.warmup(T, 0.1),
    S.warmup50: lambda T: reference.warmup(T, 0.5),
    S.cosine: reference.cosine,
    S.sigmoid: reference.sigmoid,
}


@pytest.mark.parametrize("schedule", LITERAL)
@pytest.mark.parametrize("T", [2, 7, 50, 1000, 4000])
def test_is_the_literal_transcription(schedule, T):
    betas = schedule(T)
    assert betas.dtype == torch.float64
    np.testing.assert_allclose(betas, LITERAL[schedule](T), rtol=1e-9)


def test_jsd_is_the_original_but_for_its_last_beta():
    betas = S.jsd(1000)
    np.testing.assert_allclose(betas[:-1], reference.jsd(1000)[:-1], rtol=1e-12)
    assert betas[-1] == 0.999  # the original has 1, so that alpha_bar_T = 0


@pytest.mark.parametrize(
    ("schedule", "alpha_bar_T"),
    [(S.quadratic, 7.334e-4), (S.warmup10, 4.6e-9), (S.warmup50, 2.6e-7), (S.constant, 1.7e-9), (S.cosine, 2.43e-9)],
)
def test_alpha_bar_at_the_end(schedule, alpha_bar_T):
    assert ForwardProcess(schedule(1000)).alpha_bar[-1].item() == pytest.approx(alpha_bar_T, rel=0.02)


def test_cosine_anchors():
    betas = S.cosine(1000)
    assert betas[0].item() == pytest.approx(4.128422e-05, rel=1e-6)
    assert (betas == 0.999).nonzero().flatten().tolist() == [999]
    betas = S.cosine(4000)
    assert betas[0].item() == pytest.approx(9.865819e-06, rel=1e-6)
    assert ForwardProcess(betas).alpha_bar[-1].item() == pytest.approx(1.52e-10, rel=0.01)


@pytest.mark.parametrize("side", [32, 64, 256])
def test_a_scaled_cosine_is_that_of_simple_diffusion(side):
    """Hoogeboom et al. 2023: log SNR(u) = -2 log tan(pi u / 2) + 2 log(64 / side), in continuous time u = t / T."""
    alpha_bar = ForwardProcess(S.cosine(1000, offset=1e-9, snr_scale=(64 / side) ** 2)).alpha_bar[1:-1].double()
    u = np.arange(1, 1000) / 1000
    log_snr = -2 * np.log(np.tan(np.pi * u / 2)) + 2 * np.log(64 / side)
    np.testing.assert_allclose(alpha_bar.log() - torch.log1p(-alpha_bar), log_snr, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("offset", "snr_scale"), [(0.008, 0.25), (0.3, 0.25), (0.3, 4.0)])
def test_snr_scale_multiplies_the_ratio_of_signal_to_noise_at_every_t(offset, snr_scale):
    t = torch.arange(1, 50)  # at T = 50 beta is cut
    plain, scaled = (ForwardProcess(S.cosine(50, offset, snr_scale=scale)).snr(t) for scale in (1.0, snr_scale))
    torch.testing.assert_close(scaled, snr_scale * plain)


@pytest.mark.parametrize("schedule", [S.jsd, S.cosine])
def test_max_beta_cuts_what_is_larger_and_nothing_else(schedule):
    free, cut = schedule(20), schedule(20, max_beta=0.25)
    assert (free > 0.25).any()
    assert torch.equal(cut, torch.where(free > 0.25, 0.25, free))


def test_rescaled_linear_anchors():
    betas = S.linear(4000, rescale=True)
    assert betas[0].item() == pytest.approx(2.5e-5)
    assert betas[-1].item() == pytest.approx(5e-3)
    assert ForwardProcess(betas).alpha_bar[-1].item() == pytest.approx(4.2467e-05, rel=1e-4)


@pytest.mark.parametrize("schedule", [*WITH_ENDPOINTS, S.constant])
def test_rescaling_multiplies_the_endpoints_by_1000_over_T(schedule):
    assert torch.equal(schedule(1000, rescale=True), schedule(1000))
    torch.testing.assert_close(schedule(250, rescale=True), schedule(250, beta_T=0.08, **_first(schedule, 4e-4)))


def _first(schedule, beta_1):
    return {} if schedule is S.constant else {"beta_1": beta_1}


@pytest.mark.parametrize("schedule", EVERY)
@given(T=st.integers(2, 300))
def test_every_T_makes_a_process(schedule, T):
    process = ForwardProcess(schedule(T))
    assert process.T == T
    assert bool(process.alpha_bar.isfinite().all())


@pytest.mark.parametrize("schedule", EVERY)
@pytest.mark.parametrize("T", [1, 0, -3])
def test_refuses_too_few_steps(schedule, T):
    with pytest.raises(ValueError, match="use at least 2"):
        schedule(T)


@pytest.mark.parametrize("schedule", WITH_ENDPOINTS)
@pytest.mark.parametrize("endpoints", [(0.0, 0.02), (1e-4, 1.0), (1e-4, 20.0), (-1e-4, 0.02), (float("nan"), 0.02)])
def test_refuses_endpoints_that_are_no_variances(schedule, endpoints):
    with pytest.raises(ValueError, match="between 0 and 1"):
        schedule(100, *endpoints)


def test_refuses_a_rescaling_that_leaves_the_interval():
    with pytest.raises(ValueError, match="use T > 20"):
        S.linear(20, rescale=True)
    assert S.linear(21, rescale=True).max() < 1
    with pytest.raises(ValueError, match=r"beta 1\.5 at T=200, .*use T > 300"):
        S.linear(200, beta_1=0.3, beta_T=0.1, rescale=True)


def test_refuses_bad_shapes_of_cosine_and_jsd():
    with pytest.raises(ValueError, match="max_beta=1"):
        S.jsd(10, max_beta=1.0)
    with pytest.raises(ValueError, match="max_beta=0"):
        S.cosine(10, max_beta=0.0)
    with pytest.raises(ValueError, match="offset=-1"):
        S.cosine(10, offset=-1.0)
    with pytest.raises(ValueError, match="offset=0"):
        S.cosine(10, offset=0.0)
    with pytest.raises(ValueError, match="snr_scale=0"):
        S.cosine(10, snr_scale=0.0)
