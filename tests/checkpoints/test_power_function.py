"""Power-function averages: their profiles, by quadrature and step by step, and how one is made of others."""

import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from omegaconf import OmegaConf

from ddpm.checkpoints import snapshots
from ddpm.checkpoints.power_function import TOLERANCE, Profile, combination, decay_of, gamma_of, products, within_reach
from ddpm.config.groups import file_of


def integral(f, upper):
    """Integrates f from 0 to `upper` by Gauss and Legendre on pieces that shrink towards 0, where powers are rough."""
    x, w = leggauss(20)
    ends = upper * np.array([0, *2.0 ** (np.arange(-240, 1) / 8)])
    middle, half = (ends[1:] + ends[:-1])[:, None] / 2, np.diff(ends)[:, None] / 2
    return float((f(middle + half * x) @ w * half[:, 0]).sum())


def density(profile):
    """The continuous profile, as the paper defines it: nothing after t, a power before it, of integral 1."""
    t, gamma = profile
    return lambda tau: np.where(tau <= t, (gamma + 1) / t * np.abs(tau / t) ** gamma, 0)


def by_step(profile, steps):
    """The weights of steps 1..steps in a power-function average: its profile's integral over each step."""
    ends = np.minimum(np.arange(steps + 1), profile.t) / profile.t
    return np.diff(ends ** (profile.gamma + 1))


def test_the_exponents_that_the_paper_quotes():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("length", [0.005, 0.02, 0.05, 0.15, 0.288])
def test_the_length_is_the_standard_deviation_of_the_profile_as_a_share_of_t(length):
    p, t = density(Profile(700, gamma_of(length))), 700
    mean = integral(lambda tau: tau * p(tau), t)
    assert integral(p, t) == pytest.approx(1)
    assert integral(lambda tau: (tau - mean) ** 2 * p(tau), t) ** 0.5 / t == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize("length", [0.02, 0.10, 0.25])
def test_each_step_weighs_as_much_as_its_part_of_the_profile(length):
    steps, gamma, average = 50, gamma_of(length), np.zeros(50)
    for step in range(1, steps + 1):
        decay = decay_of(gamma, step)
        average = decay * average + (1 - decay) * np.eye(steps)[step - 1]
        np.testing.assert_allclose(average, by_step(Profile(step, gamma), steps), rtol=1e-12, atol=1e-15)


def test_products_are_integrals():
    profiles = [Profile(t, gamma_of(length)) for t in (30, 90, 100) for length in (0.02, 0.1, 0.28)]
    found = products(profiles, profiles)
    for i, a in enumerate(profiles):
        for j, b in enumerate(profiles):
            expected = integral(lambda tau, a=a, b=b: density(a)(tau) * density(b)(tau), min(a.t, b.t))
            assert found[i, j] == pytest.approx(expected, rel=1e-6)


KNOWN = [Profile(t, gamma_of(length)) for t in (30, 40, 55, 70, 80, 100) for length in (0.05, 0.10)]


@pytest.mark.parametrize("length", [0.04, 0.07, 0.13])
def test_no_other_combination_comes_nearer_step_by_step(length):
    """Against least squares over the weights of a hundred steps, in the place of the integrals' closed form.

    The paper scales the solution to a sum of 1, which costs a few hundredths of the distance.
    """
    wanted = by_step(Profile(100, gamma_of(length)), 100)
    known = np.stack([by_step(profile, 100) for profile in KNOWN], 1)
    found = combination(KNOWN, Profile(100, gamma_of(length)))
    best = np.linalg.lstsq(known, wanted, rcond=None)[0]
    nearest, ours = (np.linalg.norm(known @ x - wanted) / np.linalg.norm(wanted) for x in (best, found.coefficients))
    assert found.coefficients.sum() == pytest.approx(1)
    assert found.error == pytest.approx(ours, rel=0.02)
    assert ours < 1.05 * nearest


def test_what_is_kept_is_found_again():
    for k, profile in enumerate(KNOWN):
        found = combination(KNOWN, profile)
        np.testing.assert_allclose(found.coefficients, np.eye(len(KNOWN))[k], atol=1e-6)
        assert found.error < 1e-5


def test_the_bound_is_as_far_as_a_length_that_is_5_to_7_percent_off():
    for length in (0.02, 0.05, 0.1, 0.15):
        wanted = Profile(500, gamma_of(length))
        near, far = (combination([Profile(500, gamma_of(off * length))], wanted).error for off in (1.045, 1.075))
        assert near < TOLERANCE < far


@pytest.mark.parametrize("step", [100, 2800, 3750, 4097, 800_000])
def test_what_is_kept_by_default_reaches_from_0_02_to_0_2_at_any_step(step):
    steps = sorted({round(2 ** (k / 4)) for k in range(80)})
    kept = [s for s in steps if snapshots.OLDEST * step <= s <= snapshots.NEWEST * step]
    assert len(kept) in (7, 8)
    lengths = OmegaConf.load(file_of("ema", "posthoc")).lengths
    known = [Profile(s, gamma_of(length)) for s in (*kept, step) for length in lengths]
    for k in range(2, 21):
        found = combination(known, Profile(step, gamma_of(k / 100)))
        assert found.error < TOLERANCE
        assert np.linalg.norm(found.coefficients[:-3]) < 1  # of the snapshots, whose rounding is not magnified


def test_the_reach_ends_where_the_error_passes_its_bound():
    lengths = np.arange(10, 289, 2) / 1000
    error = {length: combination(KNOWN, Profile(100, gamma_of(length))).error for length in lengths}
    [(shortest, longest)] = within_reach(KNOWN, 100, lengths)
    inside = {length for length in lengths if shortest <= length <= longest}
    assert inside == {length for length in lengths if error[length] <= TOLERANCE}
    assert 0.03 < shortest < 0.05 < 0.10 < longest < 0.2
    alone = [Profile(100, gamma_of(length)) for length in (0.02, 0.25)]
    assert len(within_reach(alone, 100, lengths)) == 2  # and nothing between the two
