import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.diffusion.decoder import ContinuousDecoder, DiscretizedDecoder
from ddpm.diffusion.gaussian import Gaussian

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
LITERAL = {"tanh": reference.tanh_cdf, "exact": reference.exact_cdf}


def step(mean: float, std: float) -> Gaussian:
    """One example with 256 subpixels."""
    return Gaussian(torch.full_like(LEVELS, mean)[None], torch.full_like(LEVELS, 2 * math.log(std))[None])


@pytest.mark.parametrize("cdf", LITERAL)
@given(mean=st.floats(-1.2, 1.2), std=st.floats(1e-3, 2))
def test_probabilities_of_the_256_levels_sum_to_1(cdf, mean, std):
    total = DiscretizedDecoder(cdf).log_prob(step(mean, std), LEVELS[None]).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("cdf", LITERAL)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0073846), (0.31, 0.05), (-1.0, 0.01), (0.999, 0.3), (5.0, 0.01)])
def test_is_the_literal_transcription(cdf, mean, std):
    got = DiscretizedDecoder(cdf).log_prob(step(mean, std), LEVELS[None])[0]
    want = [reference.decoder_log_prob(x, mean, 2 * math.log(std), LITERAL[cdf]) for x in LEVELS.tolist()]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_the_approximation_of_the_cdf_is_off_by_at_most_2e_4():
    z = torch.linspace(-6, 6, 10001, dtype=torch.float64)
    gap = (DiscretizedDecoder("tanh").cdf(z) - DiscretizedDecoder("exact").cdf(z)).abs().max().item()
    assert 1.5e-4 < gap < 2e-4


def test_no_mass_costs_39_9_bits():
    bits = -DiscretizedDecoder().log_prob(step(0.5, 1e-3), LEVELS[None])[0, 0] / math.log(2)
    assert bits.item() == pytest.approx(39.863, abs=1e-3)


def test_continuous_is_the_density():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, generator=g)
    got = ContinuousDecoder().log_prob(Gaussian(torch.zeros(3, 2), torch.zeros(3, 2)), x)
    torch.testing.assert_close(got, -0.5 * x**2 - 0.5 * math.log(2 * math.pi))


def test_refuses_an_unknown_cdf():
    with pytest.raises(ValueError, match="not one of tanh, exact"):
        DiscretizedDecoder("erf")
