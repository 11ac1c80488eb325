"""The bound from a few evaluations: without bias, with an honest error, at the cost that it says."""

import math
from itertools import pairwise

import pytest
import torch
from oracle import gaussian_data, levels, optimal
from torch import nn

from ddpm.diffusion import budget
from ddpm.diffusion.budget import Design, Outline, Visits, estimate, estimate_bound, explore, split_budget
from ddpm.diffusion.likelihood import evaluate_bound, prior_term
from ddpm.diffusion.prediction import X0, Epsilon
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import cosine, linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Counting(nn.Module):
    """Notes the t of every evaluation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, t):
        self.seen.append(t + 1)
        return torch.zeros_like(x)


def within(estimates, exact, sigmas=4.0):
    """The mean of per-example estimates against the mean of per-example values."""
    error = (estimates - exact).std() / math.sqrt(len(exact))
    assert abs(float((estimates - exact).mean())) < sigmas * float(error), float(error)
    return float(error)


@pytest.fixture(scope="module")
def model():
    T = 60
    p = optimal(ForwardProcess(linear(T, rescale=True)), Epsilon(), FixedLarge())
    x_0 = levels(gaussian_data(4000, 4))
    exact = sum(evaluate_bound(p, x_0, rng(seed)).nats for seed in range(3)) / 3
    return p, x_0, exact


@pytest.mark.parametrize("K", [2, 3, 7, 60])
def test_the_estimate_without_a_pilot_is_unbiased(model, K):
    p, x_0, exact = model
    within(estimate_bound(p, x_0, rng(8), K).nats, exact)


def test_the_estimate_without_a_pilot_holds_the_prior():
    """The prior's part is nearly nothing in any schedule of use; in this one little noise is added, and it is large."""
    q = ForwardProcess(linear(8, beta_T=0.02))
    p = optimal(q, Epsilon(), FixedLarge())
    x_0 = levels(gaussian_data(400, 4))
    found = estimate_bound(p, x_0, rng(), 3)
    assert prior_term(q, x_0).min() > 1
    torch.testing.assert_close(found.nats.double(), prior_term(q, x_0).double() + found.shares.double().sum(1))


@pytest.mark.parametrize("K", [6, 11, 30])
def test_the_estimate_on_a_budget_is_unbiased(model, K):
    p, x_0, exact = model
    pilot, half = split_budget(K)
    design = Design.of(explore(p, x_0, pilot, rng(1)), p.q.T)
    found = estimate(p, x_0, design, half, rng(2))
    nats = prior_term(p.q, x_0) + (found.distortion_nats + found.rate_nats).mean(1)
    within(nats, exact)


def test_no_design_makes_a_bias(model):
    """However wrong the level and the slopes, and however little of the budget goes where the terms are."""
    p, x_0, exact = model
    T = p.q.T
    wrong = Design(torch.rand(T, generator=rng(), dtype=torch.float64) * 9, torch.randn(T, 3, generator=rng()).double(),
                   torch.linspace(0.2, 1, T, dtype=torch.float64))  # fmt: skip
    found = estimate(p, x_0, wrong, 8, rng(3))
    within(prior_term(p.q, x_0) + (found.distortion_nats + found.rate_nats).mean(1), exact)


def test_the_parts_are_estimated_apart(model):
    p, x_0, _ = model
    exact = evaluate_bound(p, x_0, rng(5))
    found = estimate(p, x_0, Design.of(explore(p, x_0, 4, rng(1)), p.q.T), 13, rng(2))
    within(found.distortion_nats.mean(1), exact.distortion_nats)
    within(found.rate_nats.mean(1) + exact.prior, exact.rate_nats)


def pilot_of(nats, T=60, visits=3, squared_error=torch.zeros_like):
    """A pilot of 400 examples whose terms and squared errors are functions of t, with noise that tells nothing."""
    t, _ = Design.blind(T).draw(400, visits, rng())
    covariates = torch.randn(*t.shape, 3, generator=rng(1), dtype=torch.float64)
    return Visits(t, nats(t.double()), covariates, squared_error(t.double()))


def test_terms_that_fall_as_1_over_t_are_known_from_a_pilot():
    design = Design.of(pilot_of(lambda t: 5 / t), 60)
    torch.testing.assert_close(design.level, 5 / torch.arange(1, 61).double())
    assert design.slopes.abs().max() < 1e-10


def test_the_standard_error_of_a_term_is_its_deviation_over_the_root_of_its_visits():
    """t L_{t-1} has the deviation 2; with T = 3 every t has a bin of its own."""
    pilot = pilot_of(lambda t: (9 + 2 * torch.randn(t.shape, generator=rng(2)).double()) / t, T=3)
    counts = torch.tensor([float((pilot.t == t).sum()) for t in (1, 2, 3)])
    assert counts.min() > 200
    expected = 2 / (torch.arange(1, 4) * counts.sqrt()).double()
    torch.testing.assert_close(Outline.of(pilot, Design.of(pilot, 3)).terms_stderr, expected, rtol=0.15, atol=0)


def test_a_squared_error_that_is_linear_in_log_t_is_known_between_the_visits_and_constant_beyond_them():
    """Means of a linear function are its values at the means."""
    pilot = pilot_of(lambda t: 5 / t, squared_error=lambda t: 1 + 20 * t.log())
    found = Outline.of(pilot, Design.of(pilot, 60)).squared_error
    line = 1 + 20 * torch.arange(1, 61).double().log()
    assert line[40] < found[-1] < line[-1] - 0.1  # the mean over the last bin
    torch.testing.assert_close(found, line.clamp(max=float(found[-1])))


def test_no_t_is_passed_over_whose_terms_did_not_scatter_in_the_pilot():
    exact = Design.of(pilot_of(lambda t: (5 + (t > 20) * torch.randn(t.shape, generator=rng(2)).double()) / t), 60)
    assert exact.scatter.argmin() < 20
    assert exact.scatter.min() > 0.9e-3 * exact.scatter.mean()


def test_few_visits_tell_a_mean_and_a_deviation_but_no_regression():
    few = Visits(*(part[:10] for part in pilot_of(lambda t: (t % 3 + 1) / t, visits=2)))
    design, later = Design.of(few, 60), (few.t * few.nats)[few.t > 1]
    assert len(later) == 10
    assert not design.slopes.any()
    torch.testing.assert_close(design.level[1:], later.mean() / torch.arange(2, 61))
    torch.testing.assert_close(design.scatter[1:], later.std() / torch.arange(2, 61))


@pytest.mark.parametrize("visits", [2, 5])
def test_the_other_t_are_visited_however_much_the_first_term_scatters(visits):
    zero, scatter = torch.zeros(60).double(), torch.ones(60).double()
    scatter[0] = 1e9
    t, weight = Design(zero, zero[:, None].expand(60, 3), scatter).draw(7, visits, rng())
    assert t.shape == (7, visits)
    assert ((t == 1).sum(1) == visits - 1).all()
    torch.testing.assert_close(weight[:, :-1].sum(1), torch.ones(7).double())
    torch.testing.assert_close(weight[:, -1], torch.full((7,), 59.0).double())  # 59 t are equally probable


@pytest.mark.long
def test_the_halves_tell_the_error(model):
    """The error that one draw claims is the deviation of many draws."""
    p, x_0, _ = model
    x_0 = x_0[:200]
    means, claims = [], []
    for seed in range(60):
        design = Design.of(explore(p, x_0, 2, rng(1000 + seed)), p.q.T)
        found = estimate(p, x_0, design, 7, rng(seed))
        halves = found.distortion_nats + found.rate_nats
        means.append(float(halves.mean()))
        claims.append(float((halves[:, 0] - halves[:, 1]).square().mean().sqrt() / 2 / math.sqrt(len(x_0))))
    deviation = float(torch.tensor(means).std())
    assert deviation == pytest.approx(sum(claims) / len(claims), rel=0.3)  # a deviation of 60 is good to 9 %


def test_the_pilot_pays(model):
    """Levels, control variates and allocation together, against blind visits at the same total cost."""
    p, x_0, exact = model
    pilot, half = split_budget(24)
    found = estimate(p, x_0, Design.of(explore(p, x_0, pilot, rng(1)), p.q.T), half, rng(2))
    adapted = prior_term(p.q, x_0) + (found.distortion_nats + found.rate_nats).mean(1)
    assert within(adapted, exact) < 0.7 * within(estimate_bound(p, x_0, rng(3), 24).nats, exact)


@pytest.mark.parametrize("K", [6, 7, 20, 50])
def test_the_budget_is_what_it_says(K):
    network, x_0 = Counting(), torch.zeros(40, 1)
    p = ReverseProcess(network, ForwardProcess(linear(200)), X0(), FixedSmall())
    pilot, half = split_budget(K)
    estimate(p, x_0, Design.of(explore(p, x_0, pilot, rng()), 200), half, rng(1))
    assert len(network.seen) == K
    assert all(len(t) == len(x_0) and t.min() >= 1 and t.max() <= 200 for t in network.seen)


def test_visits_cover_t():
    network, x_0 = Counting(), torch.zeros(300, 1)
    p = ReverseProcess(network, ForwardProcess(linear(200)), X0(), FixedSmall())
    estimate_bound(p, x_0, rng(), 10)
    first, *others = network.seen
    assert first.unique().tolist() == [1]
    assert min(t.min() for t in others) == 2
    assert max(t.max() for t in others) > 190
    assert all(a.max() <= b.min() for a, b in pairwise(others))


@pytest.mark.parametrize("n", [1, 3, 40])
def test_a_small_pilot_is_enough_to_go_on(n):
    p = optimal(ForwardProcess(cosine(50)), Epsilon(), FixedSmall())
    x_0 = levels(gaussian_data(n, 3))
    found = estimate(p, x_0, Design.of(explore(p, x_0, 2, rng()), 50), 4, rng(1))
    assert found.rate_nats.isfinite().all()
    assert found.distortion_nats.shape == (n, 2)


def test_too_few_evaluations_are_refused():
    with pytest.raises(ValueError, match="use at least 6"):
        split_budget(5)
    p = optimal(ForwardProcess(linear(10)), Epsilon(), FixedSmall())
    with pytest.raises(ValueError, match="use at least 2"):
        estimate_bound(p, torch.zeros(1, 2), rng(), 1)


def test_the_covariates_of_mirrored_images_under_mirrored_noise_are_the_same():
    """Black and white are alike: the decoder's outermost bins are open at both ends."""
    x_0, noise = torch.randn(2, 5, 12, generator=rng())
    torch.testing.assert_close(budget._covariates(-x_0, -noise), budget._covariates(x_0, noise))


def test_the_covariates_have_no_mean():
    x_0 = torch.linspace(-1, 1, 12).expand(200_000, 12)
    found = budget._covariates(x_0, torch.randn(x_0.shape, generator=rng()))
    assert (found.mean(0).abs() < 5 * found.std(0) / math.sqrt(len(x_0))).all()
