import pytest
import torch
from torch import nn

from ddpm.diffusion.condition import Condition
from ddpm.diffusion.decoder import ContinuousDecoder
from ddpm.diffusion.prediction import X0, Epsilon, Prediction
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned

q = ForwardProcess(linear(100))


class Fixed(nn.Module):
    """Answers always the same and remembers the question."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t):
        self.seen = (x, t)
        return self.answer


def test_the_network_counts_from_0():
    network = Fixed(torch.zeros(2, 3))
    x_t = torch.ones(2, 3)
    ReverseProcess(network, q, Epsilon(), FixedLarge())(x_t, torch.tensor([1, 100]))
    assert network.seen[0] is x_t
    assert network.seen[1].tolist() == [0, 99]


def test_the_second_half_of_the_channels_is_the_variance():
    output, raw = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    p = ReverseProcess(Fixed(torch.cat([output, raw], 1)), q, X0(), Learned())
    estimate = p(torch.randn(2, 3, 4, 4), torch.tensor([5, 50]))
    assert torch.equal(estimate.output, output)
    assert torch.equal(estimate.x_0, output)
    assert torch.equal(estimate.step.log_var, raw)


def test_clipping_cuts_x_0_before_the_mean_is_made():
    p = ReverseProcess(Fixed(torch.tensor([[7.0, -7.0, -0.5, 0.5]])), q, X0(), FixedSmall())
    x_t, t = torch.zeros(1, 4), torch.tensor([50])
    free, clipped = p(x_t, t), p(x_t, t, clip=True)
    assert free.x_0.tolist() == [[7, -7, -0.5, 0.5]]
    assert clipped.x_0.tolist() == [[1, -1, -0.5, 0.5]]
    torch.testing.assert_close(free.step.mean, torch.tensor([7, 7, 1, 1]) * clipped.step.mean)
    assert torch.equal(clipped.output, free.output)


def test_the_last_step_means_the_estimate_itself():
    answer = torch.randn(1, 2)
    p = ReverseProcess(Fixed(answer), q, X0(), FixedSmall())
    for t in (1, 37):
        step = p(torch.randn(1, 2), torch.tensor([t]), torch.tensor([0])).step
        assert torch.equal(step.mean, answer)


class Narrow(nn.Module):
    """A layer as autocast runs it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, t):
        out = self.layer(x)
        assert out.dtype == torch.bfloat16
        return out


def test_everything_after_the_network_is_float32_under_autocast():
    p = ReverseProcess(Narrow(), q, Epsilon(), FixedLarge())
    with torch.autocast("cpu", torch.bfloat16):
        estimate = p(torch.randn(4, 2), torch.full((4,), 3))
    assert {estimate.output.dtype, estimate.x_0.dtype, estimate.step.mean.dtype, estimate.step.log_var.dtype} == {
        torch.float32
    }


def test_what_is_known_of_a_process_is_known_of_it_over_another_network():
    p = ReverseProcess(nn.Identity(), q, X0(), FixedSmall(), ContinuousDecoder())
    assert p.given(None) is p
    assert (p.event_shape, p.always_conditioned) == (None, False)
    p.event_shape, p.always_conditioned = (3, 8, 8), True
    for other in (p.over(nn.Identity()), p.given(Condition(torch.tensor([1])))):
        assert (other.event_shape, other.always_conditioned, other.decoder) == ((3, 8, 8), True, p.decoder)


def test_a_network_without_channels_for_the_variance_is_noticed():
    p = ReverseProcess(Fixed(torch.zeros(1, 3)), q, X0(), Learned())
    with pytest.raises(ValueError, match="are due"):
        p(torch.zeros(1, 3), torch.tensor([5]))


class Twice(Prediction):
    """x_0 by a network that is given twice x_t; of too few channels, if that is asked for."""

    def __init__(self, channels):
        self.channels = channels

    def network_input(self, q, x_t, t):
        return 2 * x_t

    def target(self, q, x_0, noise, t):
        return x_0

    def x_0(self, q, output, x_t, t):
        return output[:, : self.channels]


def test_the_network_is_given_what_the_prediction_makes_of_x_t():
    network, x_t, t = Fixed(torch.zeros(1, 3)), torch.ones(1, 3), torch.tensor([5])
    ReverseProcess(network, q, Twice(3), FixedSmall())(x_t, t)
    assert torch.equal(network.seen[0], 2 * x_t)
    with pytest.raises(ValueError, match=r"Twice\.x_0 is \[1, 1\] for x_t \[1, 3\]"):
        ReverseProcess(network, q, Twice(1), FixedSmall())(x_t, t)


def test_the_variance_is_that_of_the_step_that_is_taken():
    p, x_t, t, s = ReverseProcess(Fixed(torch.zeros(1, 2)), q, X0(), FixedSmall()), torch.zeros(1, 2), 50, 20
    step = p(x_t, torch.tensor([t]), torch.tensor([s])).step
    a_t, a_s = q.alpha_bar[[t, s]]
    beta_tilde = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    torch.testing.assert_close(step.log_var.exp().expand(1, 2), beta_tilde.float().expand(1, 2))
