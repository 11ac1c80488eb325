import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedule import cosine, linear
from ddpm.edm import Preconditioned

PREDICTIONS = [Epsilon(), Mu(), X0(), Velocity(), Preconditioned(0.5)]
PROCESSES = [ForwardProcess(schedule(1000)) for schedule in (linear, cosine)]
literal = reference.Process(reference.linear(1000))
predictions = pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)


def case(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(shape, generator=g, dtype=torch.float64) * 2 - 1
    return x_0, torch.randn(shape, generator=g, dtype=torch.float64)


@predictions
@pytest.mark.parametrize("q", PROCESSES, ids=["linear", "cosine"])
@given(t=st.integers(1, 1000), seed=st.integers(0, 2**31))
def test_x_0_comes_back_from_the_target(prediction, q, t, seed):
    t, (x_0, noise) = torch.tensor([t]), case(seed, 1, 3, 2, 2)
    back = prediction.x_0(q, prediction.target(q, x_0, noise, t), q.diffuse(x_0, t, noise), t)
    torch.testing.assert_close(back, x_0, rtol=0, atol=1e-6)


@predictions
@given(t=st.integers(1, 1000), below=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**31))
def test_the_mean_of_a_perfect_output_is_the_posterior_mean(prediction, t, below, seed):
    q, (x_0, noise) = PROCESSES[0], case(seed, 1, 2)
    s, t = torch.tensor([int(below * t)]), torch.tensor([t])
    x_t, output = q.diffuse(x_0, t, noise), prediction.target(q, x_0, noise, t)
    mean = prediction.mean(q, output, prediction.x_0(q, output, x_t, t), x_t, t, s)
    torch.testing.assert_close(mean, q.posterior(x_0, x_t, t, s).mean, rtol=0, atol=1e-6)


@given(t=st.integers(1, 1000), seed=st.integers(0, 2**31))
def test_targets_are_the_literal_transcriptions(t, seed):
    q, (x_0, noise) = PROCESSES[0], case(seed, 1, 1)
    x, z, time = x_0.item(), noise.item(), torch.tensor([t])
    a = literal.alpha_bar[t]
    want = {
        Epsilon: z,
        Mu: literal.mu_tilde(literal.diffuse(x, t, z), x, t),
        X0: x,
        Velocity: a**0.5 * z - (1 - a) ** 0.5 * x,
        Preconditioned: ((1 - a) ** 0.5 * x - 0.25 * a**0.5 * z) / (0.5 * (0.25 * a + 1 - a) ** 0.5),
    }
    for prediction in PREDICTIONS:
        got = prediction.target(q, x_0, noise, time).item()
        assert got == pytest.approx(want[type(prediction)], abs=1e-12)


@given(t=st.integers(1, 1000), seed=st.integers(0, 2**31))
def test_the_mean_of_epsilon_is_equation_11(t, seed):
    q, time, (x_t, epsilon) = PROCESSES[0], torch.tensor([t]), case(seed, 1, 1)
    mean = Epsilon().mean(q, epsilon, Epsilon().x_0(q, epsilon, x_t, time), x_t, time, time - 1)
    assert mean.item() == pytest.approx(literal.mu_of_epsilon(x_t.item(), epsilon.item(), t), abs=1e-9)


def test_mu_keeps_its_raw_mean_when_its_x_0_is_clipped():
    q, mu, x_t, output = PROCESSES[0], Mu(), torch.full((2, 3, 2, 2), 3.0), torch.full((2, 3, 2, 2), 2.9)
    t, s = torch.tensor([500, 500]), torch.tensor([499, 250])
    clipped = mu.x_0(q, output, x_t, t).clamp(-1, 1)
    mean = mu.mean(q, output, clipped, x_t, t, s)
    assert torch.equal(mean[0], output[0])
    assert torch.equal(mean[1], q.posterior(clipped, x_t, t, s).mean[1])
    assert not torch.allclose(q.posterior(clipped, x_t, t, s).mean[0], output[0])


@pytest.mark.parametrize(
    "prediction", [Epsilon(), X0(), Velocity(), Preconditioned(0.5)], ids=lambda p: type(p).__name__
)
def test_the_others_take_their_mean_from_the_clipped_x_0(prediction):
    q, x_t, output = PROCESSES[0], torch.full((1, 3), 3.0), torch.full((1, 3), -4.0)
    t = torch.tensor([500])
    clipped = prediction.x_0(q, output, x_t, t).clamp(-1, 1)
    assert torch.equal(prediction.mean(q, output, clipped, x_t, t, t - 1), q.posterior(clipped, x_t, t).mean)
