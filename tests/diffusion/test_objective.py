import math

import pytest
import reference
import torch
from torch import nn

from ddpm.diffusion.objective import Hybrid, MinSNR, Simple, Unweighted, Vlb
from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned, LearnedRange

T = 1000
q = ForwardProcess(linear(T))
literal = reference.Process(reference.linear(T))
predictions = pytest.mark.parametrize("prediction", [Epsilon(), Mu(), X0(), Velocity()], ids=lambda p: type(p).__name__)
TIMES = torch.tensor([1, 1, 2, 100, 500, 1000])


class Answer(nn.Module):
    """A network whose answer is its parameter."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x, t):
        return self.answer


def case(channels=3):
    g = torch.Generator().manual_seed(0)
    x_0 = ((torch.rand(6, 3, generator=g, dtype=torch.float64) * 255).round() / 127.5) - 1
    noise = torch.randn(6, 3, generator=g, dtype=torch.float64)
    return x_0, noise, torch.randn(6, channels, generator=g, dtype=torch.float64)


@predictions
def test_simple_is_the_squared_error_in_the_space_of_the_prediction(prediction):
    x_0, noise, answer = case()
    p = ReverseProcess(Answer(answer), q, prediction, FixedLarge())
    want = (answer - prediction.target(q, x_0, noise, TIMES)).square().mean(1)
    torch.testing.assert_close(Simple()(p, x_0, TIMES, noise), want)
    torch.testing.assert_close(Simple(Unweighted())(p, x_0, TIMES, noise), want)


def test_simple_with_mu_is_the_row_of_table_2():
    x_0, noise, answer = case()
    got = Simple()(ReverseProcess(Answer(answer), q, Mu(), FixedLarge()), x_0, TIMES, noise)
    for i, t in enumerate(TIMES.tolist()):
        x, z, out = x_0[i].numpy(), noise[i].numpy(), answer[i].numpy()
        want = ((literal.mu_tilde(literal.diffuse(x, t, z), x, t) - out) ** 2).mean()
        assert got[i].item() == pytest.approx(want, rel=1e-9)


@predictions
def test_min_snr_weighs_the_error_of_x_0(prediction):
    x_0, noise, answer = case()
    p = ReverseProcess(Answer(answer), q, prediction, FixedLarge())
    x_0_error = (p(q.diffuse(x_0, TIMES, noise), TIMES).x_0 - x_0).square().mean(1)
    want = q.snr(TIMES).clamp(max=5.0) * x_0_error
    torch.testing.assert_close(Simple(MinSNR())(p, x_0, TIMES, noise), want, rtol=1e-6, atol=0)


def test_min_snr_weights_of_the_paper():
    snr = q.snr(TIMES)
    weights = {Epsilon(): snr.clamp(max=5) / snr, Velocity(): snr.clamp(max=5) / (snr + 1), X0(): snr.clamp(max=5)}
    for prediction, want in weights.items():
        p = ReverseProcess(nn.Identity(), q, prediction, FixedLarge())
        torch.testing.assert_close(MinSNR(5.0)(p, TIMES), want, rtol=1e-9, atol=0)


def test_min_snr_refuses_a_gamma_without_meaning():
    with pytest.raises(ValueError, match="must be positive"):
        MinSNR(0.0)


@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall()], ids=["large", "small"])
def test_vlb_is_the_literal_transcription_in_bits_per_dim(variance):
    x_0, noise, answer = case()
    p = ReverseProcess(Answer(answer), q, Epsilon(), variance)
    got = Vlb()(p, x_0, TIMES, noise)
    fixed = literal.fixed_large if isinstance(variance, FixedLarge) else literal.fixed_small
    for i, t in enumerate(TIMES.tolist()):
        x_t = literal.diffuse(x_0[i].numpy(), t, noise[i].numpy())
        mean = literal.mu_of_epsilon(x_t, answer[i].numpy(), t)  # unclipped, though x_0 is far outside [-1, 1]
        want = reference.bound_term(literal, x_0[i].tolist(), x_t, t, mean, [fixed(t)] * 3)
        assert got[i].item() == pytest.approx(want, rel=1e-6)
    torch.testing.assert_close(Vlb(scale=1000.0)(p, x_0, TIMES, noise), 1000 * got)


def test_vlb_with_fixed_variance_weighs_epsilon_as_the_paper_says():
    t = torch.tensor([2, 10, 100, 500, 1000])
    x_0 = torch.zeros(5, 1, dtype=torch.float64)
    noise = torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = {
        FixedLarge(): [0.27269, 0.07372, 0.010081, 0.0055034, 0.010204],
        FixedSmall(): [0.59967, 0.08644, 0.010267, 0.0055082, 0.0102045],
    }
    for variance, want in weights.items():
        off, right = (
            Vlb()(ReverseProcess(Answer(noise + error), q, Epsilon(), variance), x_0, t, noise) for error in (1.0, 0.0)
        )
        torch.testing.assert_close((off - right) * math.log(2), torch.tensor(want).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("variance", [Learned(), LearnedRange()], ids=["learned", "learned_range"])
@predictions
def test_vlb_reaches_mean_and_variance(prediction, variance):
    x_0, noise, answer = case(6)
    p = ReverseProcess(Answer(0.1 * answer), q, prediction, variance)
    Vlb()(p, x_0, TIMES, noise).sum().backward()
    gradient = p.network.answer.grad
    assert bool(gradient.isfinite().all())
    assert bool((gradient[2:] != 0).all())


@predictions
def test_hybrid_is_simple_for_the_mean_and_the_bound_for_the_variance(prediction):
    x_0, noise, answer = case(6)

    def gradient(objective):
        p = ReverseProcess(Answer(0.1 * answer), q, prediction, LearnedRange())
        loss = objective(p, x_0, TIMES, noise)
        loss.sum().backward()
        return loss.detach(), *p.network.answer.grad.chunk(2, 1)

    simple, simple_mean, _ = gradient(Simple())
    vlb, _, vlb_variance = gradient(Vlb())
    hybrid, hybrid_mean, hybrid_variance = gradient(Hybrid())
    torch.testing.assert_close(hybrid, simple + 1e-3 * T * vlb)
    torch.testing.assert_close(hybrid_mean, simple_mean)
    torch.testing.assert_close(hybrid_variance, 1e-3 * T * vlb_variance)


def test_losses_do_not_mix_examples():
    x_0, noise, answer = case(6)
    for objective in (Vlb(), Hybrid()):
        p = ReverseProcess(Answer(answer), q, Epsilon(), LearnedRange())
        objective(p, x_0, TIMES, noise)[2].backward()
        rows = p.network.answer.grad.abs().sum(1)
        assert (rows > 0).tolist() == [False, False, True, False, False, False]


class OfOneChannel(Epsilon):
    def target(self, q, x_0, noise, t):
        return noise.mean(1)


class OfOneExample(Epsilon):
    def x_0(self, q, output, x_t, t):
        return super().x_0(q, output, x_t, t)[:1]


@pytest.mark.parametrize(
    ("prediction", "answer", "message"),
    [
        (OfOneChannel(), torch.zeros(3, 3), r"OfOneChannel\.target is \[3\] for x_0 \[3, 3\]"),
        (OfOneExample(), torch.zeros(3, 3), r"OfOneExample\.x_0 is \[1, 3\] for x_t \[3, 3\]"),
        (Epsilon(), torch.zeros(1, 3), r"the network returned \[1, 3\] for x_t \[3, 3\]: \[3, 3\] are due"),
    ],
)
def test_what_would_be_broadcast_is_refused(prediction, answer, message):
    p = ReverseProcess(Answer(answer), q, prediction, FixedLarge())
    with pytest.raises(ValueError, match=message):
        Simple()(p, torch.zeros(3, 3), TIMES[:3], torch.zeros(3, 3))
