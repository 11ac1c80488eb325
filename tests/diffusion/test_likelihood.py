import math

import pytest
import reference
import torch
from oracle import gaussian_data, levels, optimal, optimal_log_var
from torch import nn

from ddpm.diffusion.decoder import ContinuousDecoder, DiscretizedDecoder
from ddpm.diffusion.gaussian import Gaussian
from ddpm.diffusion.likelihood import Bound, bound_term, bound_terms, evaluate_bound, prior_term
from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import Estimate, ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned, LearnedRange

LN2 = math.log(2)
PREDICTIONS = [Epsilon(), Mu(), X0(), Velocity()]
VARIANCES = [FixedLarge(), FixedSmall(), Learned(), LearnedRange()]


def by_name(argument):
    return type(argument).__name__


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Constant(nn.Module):
    """A network that knows the answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t):
        return self.answer


def test_terms_are_the_literal_transcription():
    T, g = 1000, rng()
    q, literal = ForwardProcess(linear(T)), reference.Process(reference.linear(T))
    t = torch.tensor([1, 1, 2, 3, 17, 500, 999, 1000])
    x_0 = levels(torch.randn(8, 5, generator=g, dtype=torch.float64))
    x_t = q.diffuse(x_0, t, torch.randn(8, 5, generator=g, dtype=torch.float64))
    step = Gaussian(0.9 * x_0, torch.randn(8, 5, generator=g, dtype=torch.float64) - 4)
    p = ReverseProcess(nn.Identity(), q, X0(), FixedSmall())
    got = bound_term(p, Estimate(x_0, x_0, step), x_0, x_t, t) / (5 * LN2)
    rows = zip(x_0.tolist(), x_t.tolist(), t.tolist(), step.mean.tolist(), step.log_var.tolist(), strict=True)
    want = [reference.bound_term(literal, a, b, time, mean, log_var) for a, b, time, mean, log_var in rows]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("variance", "bits"), [(FixedLarge(), 0.486419), (FixedSmall(), 0.0)], ids=["large", "small"])
def test_a_perfect_mean_costs_only_the_mismatch_of_the_variance(variance, bits):
    q = ForwardProcess(linear(1000))
    t = torch.arange(2, 1001)
    x_0 = levels(torch.randn(1, 3, generator=rng(), dtype=torch.float64)).expand(999, 3)
    p = ReverseProcess(Constant(x_0), q, X0(), variance)
    x_t = q.diffuse(x_0, t, torch.randn(x_0.shape, generator=rng(1), dtype=torch.float64))
    terms = bound_term(p, p(x_t, t), x_0, x_t, t) / (3 * LN2)
    assert terms.sum().item() == pytest.approx(bits, abs=1e-6)
    if bits:
        assert terms[0].item() == pytest.approx(0.17512, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prior_term(dtype):
    q = ForwardProcess(linear(1000))
    x_0 = torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, -1.0]], dtype=dtype)
    got = prior_term(q, x_0) / (2 * LN2)
    want = 5.87e-10 + 2.911e-05 * x_0[:, 0].square()
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-11)
    literal = reference.Process(reference.linear(1000))
    assert got[1].item() == pytest.approx(reference.prior_term(literal, [0.5, 0.5]) / (2 * LN2), rel=1e-4)


@pytest.mark.parametrize("variance", VARIANCES, ids=by_name)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.long
def test_the_bound_of_the_optimal_network_exceeds_the_entropy_by_the_known_gap(prediction, variance):
    """Its means are right, so each step costs only the mismatch of its variance; nothing, where that is learned."""
    T, std = 60, 0.25
    q = ForwardProcess(linear(T, rescale=True))
    p = optimal(q, prediction, variance, std=std, decoder=ContinuousDecoder())
    x_0 = gaussian_data(4000, 8)
    nll = 0.5 * ((x_0 - 0.3) / std).square() + math.log(std) + 0.5 * math.log(2 * math.pi)

    t = torch.arange(1, T + 1)
    best = optimal_log_var(q, std, t, t - 1)
    raw = p.network._raw(best[:, None], t) if variance.learned else None
    ours = variance.log_var(q, raw, best[:, None], t, t - 1).squeeze(1)
    gap = 0.5 * (torch.expm1(best - ours) - (best - ours)).sum().item()

    bound = evaluate_bound(p, x_0, rng(2), clip=False).nats / 8
    excess = bound - nll.mean(1)
    error = (excess.std() / len(x_0) ** 0.5).item()
    assert excess.mean().item() == pytest.approx(gap, abs=4 * error)
    assert error < 0.02
    assert gap < 1e-9 if variance.learned else gap > 0.05


def test_the_bound_closes_on_the_entropy_as_steps_shrink():
    gaps = []
    for T in (30, 120, 480):
        q, n = ForwardProcess(linear(T, rescale=True)), 200
        t = torch.arange(2, T + 1)  # t = 1 is the decoder's, whose variance is not that of a step
        ratio = optimal_log_var(q, 0.25, t, t - 1) - q.beta_tilde(t, t - 1).log()
        known = 0.5 * (torch.expm1(ratio) - ratio).sum().item()

        t, x_0 = t.repeat(n), gaussian_data(n, 8).repeat_interleave(T - 1, 0)
        x_t = q.diffuse(x_0, t, torch.randn(x_0.shape, generator=rng(), dtype=torch.float64))
        small, best = (optimal(q, Epsilon(), variance) for variance in (FixedSmall(), Learned()))
        excess = bound_term(small, small(x_t, t), x_0, x_t, t) - bound_term(best, best(x_t, t), x_0, x_t, t)
        gaps.append(excess.sum().item() / (8 * n))
        assert gaps[-1] == pytest.approx(known, rel=0.1)
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2] > 0


@pytest.mark.long
@pytest.mark.parametrize("cdf", ["tanh", "exact"])
def test_bits_per_dim_of_gray_levels_are_those_of_their_distribution(cdf):
    q = ForwardProcess(linear(60, rescale=True))
    p = optimal(q, Epsilon(), LearnedRange(), mean=0.0, decoder=DiscretizedDecoder(cdf))
    x_0 = levels(gaussian_data(10_000, 8, mean=0.0))
    marginal = Gaussian(torch.zeros_like(x_0), torch.full_like(x_0, 2 * math.log(0.25)))
    nll = -DiscretizedDecoder("exact").log_prob(marginal, x_0).mean(1) / LN2
    excess = evaluate_bound(p, x_0, rng(3)).bits_per_dim(8) - nll
    error = (excess.std() / len(x_0) ** 0.5).item()
    assert -4 * error < excess.mean().item() < 4 * error + 0.01
    assert error < 0.01


def test_the_bound_is_a_sum_of_its_parts():
    q = ForwardProcess(linear(20, rescale=False))
    p = optimal(q, Epsilon(), FixedSmall())
    x_0 = levels(gaussian_data(6, 4))
    bound = evaluate_bound(p, x_0, rng(4))
    assert bound.terms.shape == bound.squared_error.shape == (6, 20)
    torch.testing.assert_close(bound.nats, bound.rate_nats + bound.distortion_nats)
    torch.testing.assert_close(bound.distortion_nats, bound.terms[:, 0])
    torch.testing.assert_close(bound.bits_per_dim(4), (bound.prior + bound.terms.sum(1)) / (4 * LN2))
    torch.testing.assert_close(bound.prior, prior_term(q, x_0))


def test_terms_come_from_T_down_to_1_with_a_noise_of_their_own():
    T = 12
    q = ForwardProcess(linear(T))
    p = optimal(q, X0(), FixedSmall())
    x_0, g = levels(gaussian_data(3, 4)), rng(5)
    bound = evaluate_bound(p, x_0, rng(5))
    for term in bound_terms(p, x_0, rng(5)):
        t = torch.full((3,), term.t)
        x_t = q.diffuse(x_0, t, torch.randn(x_0.shape, generator=g, dtype=torch.float64))
        estimate = p(x_t, t, clip=True)
        torch.testing.assert_close(term.nats, bound_term(p, estimate, x_0, x_t, t))
        assert torch.equal(term.nats, bound.terms[:, term.t - 1])
        torch.testing.assert_close(bound.squared_error[:, term.t - 1], (x_0 - estimate.x_0).square().mean(1))


def test_L_0_is_the_mean_over_the_draws_of_x_1_and_the_other_terms_stay():
    T = 12
    q = ForwardProcess(linear(T))
    p = optimal(q, X0(), FixedSmall())
    x_0, g = levels(gaussian_data(3, 4)), rng(5)
    once, bound = evaluate_bound(p, x_0, rng(5)), evaluate_bound(p, x_0, rng(5), draws_of_x_1=5)
    assert torch.equal(bound.terms[:, 1:], once.terms[:, 1:])
    one, noises = torch.full((3,), 1), [torch.randn(x_0.shape, generator=g, dtype=torch.float64) for _ in range(T + 4)]
    x_1 = [q.diffuse(x_0, one, noise) for noise in noises[T - 1 :]]
    drawn = [bound_term(p, p(x, one, clip=True), x_0, x, one) for x in x_1]
    torch.testing.assert_close(bound.distortion_nats, torch.stack(drawn).mean(0))
    squares = [(x_0 - p(x, one, clip=True).x_0).square().mean(1) for x in x_1]
    torch.testing.assert_close(bound.squared_error[:, 0], torch.stack(squares).mean(0))


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.parametrize("variance", [Learned(), LearnedRange()], ids=by_name)
def test_the_gradient_of_L_0_is_that_of_the_decoder_alone(prediction, variance):
    """At t = 1, q(x_0 | x_1, x_0) is a point, from which every Gaussian is infinitely far."""
    q = ForwardProcess(linear(50))
    x_0, t = levels(gaussian_data(2, 3)), torch.ones(2, dtype=torch.int64)
    noise, error, raw = torch.randn(3, 2, 3, generator=rng(), dtype=torch.float64)
    x_t = q.diffuse(x_0, t, noise)
    answer = torch.cat([prediction.target(q, x_0, noise, t) + 0.003 * error, raw], 1).requires_grad_()
    p = ReverseProcess(Constant(answer), q, prediction, variance)
    step = p(x_t, t)
    (found,) = torch.autograd.grad(bound_term(p, step, x_0, x_t, t).sum(), answer, retain_graph=True)
    (expected,) = torch.autograd.grad(-p.decoder.log_prob(step.step, x_0).sum(), answer)
    assert expected.all()
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("clip", "estimate"), [(True, 1.0), (False, 3.0)])
def test_the_whole_bound_is_clipped_or_not_as_asked(clip, estimate):
    x_0 = levels(gaussian_data(4, 2))
    p = ReverseProcess(Constant(torch.full_like(x_0, 3.0)), ForwardProcess(linear(6)), X0(), FixedSmall())
    found = evaluate_bound(p, x_0, rng(), clip=clip).squared_error
    torch.testing.assert_close(found, (estimate - x_0).square().mean(1, keepdim=True).expand(4, 6))


def test_rate_and_distortion_are_table_4():
    bound = Bound(
        prior=torch.tensor([0.5, 1.5]),
        terms=torch.tensor([[8.0, 4.0, 2.0], [8.0, 4.0, 4.0]]),
        squared_error=torch.tensor([[0.0, 0.25, 1.0], [0.0, 0.75, 1.0]]),
    )
    rate, rmse = bound.rate_distortion(num_dims=2)
    torch.testing.assert_close(rate, torch.tensor([8.0, 4.0, 1.0]) / (2 * LN2))  # all but L_0; ...; L_T
    torch.testing.assert_close(rmse, 127.5 * torch.tensor([0.0, 0.5**0.5, 1.0]))
    torch.testing.assert_close(rate[0], bound.rate_nats.mean() / (2 * LN2))


def test_clipping_helps_where_the_noise_is_high():
    q = ForwardProcess(linear(1000))
    x_0 = torch.ones(64, 8)
    noise = torch.randn(64, 8, generator=rng(6))
    p = ReverseProcess(Constant(noise - 0.01), q, Epsilon(), FixedSmall())  # x_0 is 1.57 too large
    t = torch.full((64,), 1000)
    x_t = q.diffuse(x_0, t, noise)
    free, clipped = (bound_term(p, p(x_t, t, clip=clip), x_0, x_t, t).mean() for clip in (False, True))
    assert clipped < 0.5 * free
