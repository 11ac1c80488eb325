"""Guidance against closed forms: classes that are Gaussians, whose scores are known, and affine chains."""

import math

import pytest
import torch
from oracle import MEANS, STDS, WEIGHTS, OptimalNetwork, law, optimal, optimal_for_classes
from torch import nn

from ddpm.diffusion.condition import DROPPED, Condition
from ddpm.diffusion.decoder import ContinuousDecoder
from ddpm.diffusion.guidance import AutoGuidance, ClassifierFree, Guided, Unguided
from ddpm.diffusion.likelihood import evaluate_bound
from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned, LearnedRange
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.dpm_solver import DPMSolver

PREDICTIONS = [Epsilon(), Mu(), X0(), Velocity()]
SAMPLERS = [Ancestral(), Ancestral(9), DDIM(9), DDIM(9, eta=0.5), DPMSolver(9)]
T = 40
q = ForwardProcess(linear(T, beta_T=0.3))


def by_name(argument):
    return type(argument).__name__


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def points(n, dims=2):
    return torch.randn(n, dims, generator=rng(3), dtype=torch.float64)


def of_class(k, n):
    return Condition(torch.full((n,), k))


def estimates(p, told, x, t):
    return p.given(told)(x, t)


@pytest.mark.parametrize("w", [-1.0, -0.3, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
def test_the_guided_score_is_that_of_the_likelihood_ratio_s_power(prediction, w):
    """grad log p_t(x) + (1 + w) grad log p_t(c | x), by differentiating the densities."""
    p = optimal_for_classes(q, prediction, FixedSmall())
    t, labels = torch.arange(1, T + 1), torch.arange(T) % 3
    x = points(T).requires_grad_()
    joint = p.network.log_joint(x, t)
    marginal = joint.logsumexp(1)
    posterior = joint.gather(1, labels[:, None])[:, 0] - marginal
    (want,) = torch.autograd.grad((marginal + (1 + w) * posterior).sum(), x)
    with torch.no_grad():
        found = estimates(ClassifierFree(w)(p), Condition(labels), x, t)
        score = (q.signal(t, x) * found.x_0 - x) / q.noise_scale(t, x) ** 2
    torch.testing.assert_close(score, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
def test_the_optimal_network_knows_the_scores_with_and_without_the_class(prediction):
    p = optimal_for_classes(q, prediction, FixedSmall())
    t = torch.arange(1, T + 1)
    x = points(T).requires_grad_()
    joint = p.network.log_joint(x, t)
    for told, log_density in [(of_class(1, T), joint[:, 1]), (of_class(DROPPED, T), joint.logsumexp(1))]:
        (want,) = torch.autograd.grad(log_density.sum(), x, retain_graph=True)
        with torch.no_grad():
            x_0 = estimates(p, told, x, t).x_0
            score = (q.signal(t, x) * x_0 - x) / q.noise_scale(t, x) ** 2
        torch.testing.assert_close(score, want, rtol=1e-6, atol=1e-6)


class Counted(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, *arguments):
        self.calls += 1
        return self.network(*arguments)


def parts(estimate):
    return estimate.output, estimate.x_0, estimate.step.mean, estimate.step.log_var


def test_weight_0_is_the_unguided_model_to_the_bit_and_at_its_cost():
    p = optimal_for_classes(q, Epsilon(), Learned())
    counted = p.over(Counted(p.network))
    x, t, told = points(5), torch.tensor([1, 2, 9, 30, T]), Condition(torch.tensor([0, 1, 2, 2, DROPPED]))
    for guidance in (Unguided(), ClassifierFree(0.0)):
        assert guidance.evaluations == 1
        found = parts(estimates(guidance(counted), told, x, t))
        assert all(map(torch.equal, found, parts(estimates(p, told, x, t))))
    assert counted.network.calls == 2
    assert ClassifierFree(2.0).evaluations == 2


def test_only_guidance_without_the_condition_needs_a_network_that_knows_none():
    needing = [kind.__name__ for kind in (Unguided, ClassifierFree, AutoGuidance) if kind.needs_dropped]
    assert needing == ["ClassifierFree"]


def test_weight_minus_1_is_the_unconditional_model():
    p = optimal_for_classes(q, Velocity(), FixedLarge())
    x, t = points(4), torch.tensor([1, 9, 30, T])
    found = estimates(ClassifierFree(-1.0)(p), of_class(2, 4), x, t)
    torch.testing.assert_close(found.x_0, estimates(p, of_class(DROPPED, 4), x, t).x_0)


def test_outside_of_the_interval_nothing_is_guided():
    p = optimal_for_classes(q, Epsilon(), FixedSmall())
    counted = p.over(Counted(p.network))
    guided, always = ClassifierFree(2.0, [10, 20])(counted), ClassifierFree(2.0)(p)
    x, told = points(6), of_class(0, 6)
    t = torch.tensor([9, 10, 15, 20, 21, T])
    found, plain, led = (estimates(each, told, x, t).x_0 for each in (guided, p, always))
    inside = torch.tensor([False, True, True, True, False, False])
    assert torch.equal(found[~inside], plain[~inside])
    assert torch.equal(found[inside], led[inside])
    assert not torch.equal(plain[inside], led[inside])
    counted.network.calls = 0
    estimates(guided, told, x, torch.full((6,), 9))
    assert counted.network.calls == 1


@pytest.mark.parametrize("variance", [Learned(), LearnedRange()], ids=by_name)
def test_a_learned_variance_is_the_conditional_network_s(variance):
    p = optimal_for_classes(q, Epsilon(), variance)
    x, t, told = points(3), torch.tensor([2, 20, T]), Condition(torch.tensor([0, 1, 2]))
    guided, plain = (estimates(each, told, x, t) for each in (ClassifierFree(2.0)(p), p))
    assert torch.equal(guided.step.log_var, plain.step.log_var)
    assert not torch.equal(guided.output, plain.output)


@pytest.mark.long
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{by_name(s)}{s.num_steps}{getattr(s, 'eta', '')}")
def test_every_prediction_walks_the_same_guided_chain(sampler):
    x_T, told = points(6), Condition(torch.tensor([0, 1, 2, 0, 1, 2]))
    chains = []
    for prediction in PREDICTIONS:
        p = ClassifierFree(1.5)(optimal_for_classes(q, prediction, FixedSmall())).given(told)
        chains.append(torch.stack([state.x_t for state in sampler(p, x_T, rng(), clip=False)]))
    for chain in chains[1:]:
        torch.testing.assert_close(chain, chains[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.parametrize("label", [0, 2])
@pytest.mark.long
def test_samples_of_a_class_are_those_of_its_gaussian(prediction, label):
    p = optimal_for_classes(q, prediction, Learned()).given(of_class(label, 20_000))
    *_, last = Ancestral()(p, torch.randn(20_000, 1, generator=rng(), dtype=torch.float64), rng(1), clip=False)
    assert last.x_t.mean().item() == pytest.approx(MEANS[label].item(), abs=0.01)
    assert last.x_t.std().item() == pytest.approx(STDS[label].item(), abs=0.01)


def test_samples_of_no_class_are_of_every_class_in_its_share():
    p = optimal_for_classes(q, Epsilon(), FixedSmall()).given(of_class(DROPPED, 20_000))
    *_, last = DDIM(None)(p, torch.randn(20_000, 1, generator=rng(), dtype=torch.float64), rng(), clip=False)
    for x in (-0.6, -0.2, 0.1, 0.35, 0.65):  # the distribution function of the mixture
        want = (WEIGHTS * torch.special.ndtr((x - MEANS) / STDS)).sum()
        assert (last.x_t < x).double().mean().item() == pytest.approx(want.item(), abs=0.03)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_autoguided_samples_have_the_literal_law(prediction, eta):
    """Both networks are affine, and so is the chain: its law is carried along as two numbers."""
    good, poor, w, sampler = (0.3, 0.25), (0.1, 0.5), 0.8, DDIM(12, eta=eta)
    p, weak = (optimal(q, prediction, FixedSmall(), *each) for each in (good, poor))
    led = AutoGuidance(weak.network, scale=w)(p)
    a = [1.0, *torch.cumprod(1 - linear(T, beta_T=0.3), 0).tolist()]

    def step(x, t, s, z):
        def x_0_of(mean, std):
            return mean + math.sqrt(a[t]) * std**2 / (a[t] * std**2 + 1 - a[t]) * (x - math.sqrt(a[t]) * mean)

        x_0 = (1 + w) * x_0_of(*good) - w * x_0_of(*poor)
        sigma = eta * math.sqrt((1 - a[s]) / (1 - a[t]) * (1 - a[t] / a[s]))
        noise = (x - math.sqrt(a[t]) * x_0) / math.sqrt(1 - a[t])
        return math.sqrt(a[s]) * x_0 + math.sqrt(max(0, 1 - a[s] - sigma**2)) * noise + sigma * z

    mean, std = law(step, sampler.steps(led.q))
    *_, last = sampler(led, torch.randn(40_000, 1, generator=rng(), dtype=torch.float64), rng(1), clip=False)
    assert last.x_t.mean().item() == pytest.approx(mean, abs=4 * std / 200)
    assert last.x_t.std().item() == pytest.approx(std, rel=0.02)
    assert abs(mean - good[0]) > 0.02  # it does lead somewhere


@pytest.mark.parametrize("variance", [FixedSmall(), LearnedRange()], ids=by_name)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.long
def test_the_bound_given_the_label_is_that_of_the_class_alone(prediction, variance):
    x_0, decoder = MEANS[1] + STDS[1] * points(50), ContinuousDecoder()
    given = optimal_for_classes(q, prediction, variance, decoder=decoder).given(of_class(1, 50))
    alone = optimal(q, prediction, variance, MEANS[1], STDS[1], decoder=decoder)
    dropped = given.over(given.network.network).given(of_class(DROPPED, 50))
    found, want, without = (evaluate_bound(p, x_0, rng(), clip=False).nats for p in (given, alone, dropped))
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)
    assert without.mean() > found.mean() + 0.5  # nats that knowing the class saves


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(scale):
    with pytest.raises(ValueError, match=r"guidance\.scale"):
        ClassifierFree(scale)


@pytest.mark.parametrize("interval", [[], [3], [0, 5], [5, 4], [1, 2, 3]])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match=r"guidance\.interval"):
        AutoGuidance(nn.Identity(), 1.0, interval)


def test_an_interval_of_one_t_is_that_t():
    p = optimal(q, Epsilon(), FixedSmall(), 0.3, 0.25)
    weak = OptimalNetwork(q, Epsilon(), FixedSmall(), 0.1, 0.5)
    x, t = points(3), torch.tensor([8, 9, 10])
    found, plain = AutoGuidance(weak, 0.5, [9, 9])(p)(x, t).output, p(x, t).output
    assert (found != plain).all(1).tolist() == [False, True, False]


class Narrow(nn.Module):
    """A layer as autocast runs it, with a learned variance's channels."""

    def __init__(self, dtype, seed):
        super().__init__()
        self.dtype, self.seed = dtype, seed

    def forward(self, x, t):
        return torch.randn(len(x), 2 * x.shape[1], generator=rng(self.seed)).to(self.dtype)


@pytest.mark.parametrize("good", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("weak", [torch.bfloat16, torch.float32])
def test_outputs_are_combined_in_the_precision_of_x_t(good, weak):
    """Two outputs that are subtracted in bfloat16 are wrong by a hundredth, and guidance multiplies that."""
    x, t = points(50).float(), torch.full((50,), 9)
    networks = Narrow(good, 1), Narrow(weak, 2)
    found = Guided(*networks, 3.0)(x, t)
    better, poorer = (network(x, t).double() for network in networks)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, :2].double(), (4 * better - 3 * poorer)[:, :2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[:, 2:].double(), better[:, 2:], rtol=0, atol=0)


def test_an_unconditional_network_can_be_led_by_a_weaker_one():
    p = optimal(q, Epsilon(), FixedSmall(), 0.3, 0.25)
    weak = OptimalNetwork(q, Epsilon(), FixedSmall(), 0.1, 0.5)
    x, t = points(4), torch.tensor([1, 9, 30, T])
    good, poor = p(x, t).output, ReverseProcess(weak, q, Epsilon(), FixedSmall())(x, t).output
    for each in (weak, ReverseProcess(weak, q, Epsilon(), FixedSmall())):  # the network, or a process over it
        torch.testing.assert_close(AutoGuidance(each, 0.5)(p)(x, t).output, 1.5 * good - 0.5 * poor)
