"""Posterior sampling of Gaussian data, of which a measurement's posterior is known."""

from itertools import pairwise

import pytest
import torch
from oracle import OptimalForCovariance

from ddpm.diffusion.decoder import ContinuousDecoder
from ddpm.diffusion.posterior import DPS, MMPS, Measurement, repaint
from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.heun import Heun

PREDICTIONS = [Epsilon(), Mu(), X0(), Velocity()]
T, STD = 60, 0.1
q = ForwardProcess(linear(T, beta_T=0.25))
MEAN = torch.tensor([0.2, -0.1, 0.0], dtype=torch.float64)
COV = torch.tensor([[0.25, 0.15, 0.0], [0.15, 0.16, -0.05], [0.0, -0.05, 0.09]], dtype=torch.float64)
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([0.6, -0.3], dtype=torch.float64)


def by_name(argument):
    return type(argument).__name__


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n, seed=0):
    return torch.randn(n, 3, generator=rng(seed), dtype=torch.float64)


def process(prediction):
    return ReverseProcess(OptimalForCovariance(q, prediction, MEAN, COV), q, prediction, FixedSmall())


def measured(n):
    return Measurement(lambda x: x @ A.T, Y.expand(n, 2), STD)


def conditional(mean, cov, matrix, y, variance):
    """Mean and covariance of a Gaussian x given y = matrix x + noise."""
    gain = cov @ matrix.T @ torch.linalg.inv(matrix @ cov @ matrix.T + variance)
    return mean + gain @ (y - matrix @ mean), cov - gain @ matrix @ cov


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
def test_the_corrected_estimate_is_the_mean_given_x_t_and_the_measurement(prediction):
    t = torch.tensor([1, 7, 30, T])
    x_t = noise(4)
    found = MMPS(process(prediction), measured(4), iterations=2)(x_t, t)
    for k, time in enumerate(t.tolist()):
        a = q.alpha_bar[time]
        eye = torch.eye(3, dtype=torch.float64)
        both = torch.cat([a.sqrt() * eye, A])  # x_t and y are one measurement of x_0
        variance = torch.block_diag((1 - a) * eye, STD**2 * torch.eye(2, dtype=torch.float64))
        want, _ = conditional(MEAN, COV, both, torch.cat([x_t[k], Y]), variance)
        torch.testing.assert_close(found.x_0[k], want, rtol=1e-6, atol=1e-7)
    s = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(MMPS(process(prediction), measured(4), iterations=2)(x_t, t, s).step.mean, found.x_0)


def test_three_iterations_are_enough_for_three_numbers_and_are_what_there_is_by_default():
    """Conjugate gradients end after as many iterations as the measurement has numbers."""
    everything = Measurement(lambda x: x, torch.tensor([[0.6, -0.3, 0.2]], dtype=torch.float64), STD)
    x_t, t, eye = noise(1), torch.tensor([30]), torch.eye(3, dtype=torch.float64)
    a = q.alpha_bar[30]
    both, variance = torch.cat([a.sqrt() * eye, eye]), torch.block_diag((1 - a) * eye, STD**2 * eye)
    want, _ = conditional(MEAN, COV, both, torch.cat([x_t[0], everything.y[0]]), variance)
    found = MMPS(process(X0()), everything)(x_t, t)
    torch.testing.assert_close(found.x_0[0], want, rtol=1e-6, atol=1e-7)


def test_a_measurement_that_says_what_was_expected_changes_nothing():
    """Nothing is left for conjugate gradients to find, in which they would divide 0 by 0."""
    x_t, t = noise(2), torch.tensor([5, 40])
    plain = process(X0())(x_t, t)
    as_expected = Measurement(lambda x: x @ A.T, plain.x_0 @ A.T, STD)
    assert torch.equal(MMPS(process(X0()), as_expected)(x_t, t).x_0, plain.x_0)


@pytest.mark.parametrize("kind", [MMPS, DPS])
def test_all_but_the_mean_is_the_process_s(kind):
    p = process(Epsilon())
    p = ReverseProcess(p.network, q, p.prediction, FixedLarge(), ContinuousDecoder())
    p.event_shape, p.always_conditioned = (3,), True
    told, x_t, t, s = kind(p, measured(2)), noise(2), torch.tensor([5, 40]), torch.tensor([4, 20])
    assert (told.decoder, told.event_shape, told.always_conditioned) == (p.decoder, (3,), True)
    with torch.no_grad():  # as samplers have it
        plain, found = p(x_t, t, s), told(x_t, t, s)
    assert torch.equal(found.output, plain.output)
    assert torch.equal(found.step.log_var, plain.step.log_var)


class Trainable(torch.nn.Linear):
    """A network of weights, with a learned variance."""

    def __init__(self):
        super().__init__(3, 6, dtype=torch.float64)

    def forward(self, x, t):
        return super().forward(x)


@pytest.mark.parametrize("kind", [MMPS, DPS])
def test_an_estimate_keeps_no_graph(kind):
    """A network with weights to train would otherwise be kept, step by step, for as long as the states are."""
    p = ReverseProcess(Trainable(), q, X0(), Learned())
    estimate = kind(p, measured(2))(noise(2), torch.tensor([5, 40]))
    parts = (estimate.output, estimate.x_0, estimate.step.mean, estimate.step.log_var)
    assert not any(part.requires_grad for part in parts)


@pytest.mark.long
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
def test_samples_have_the_law_of_the_posterior(prediction):
    n = 4000
    posterior = MMPS(process(prediction), measured(n), iterations=2)
    *_, last = DDIM(None)(posterior, noise(n), rng(), clip=False)
    mean, cov = conditional(MEAN, COV, A, Y, STD**2 * torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(last.x_t.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(last.x_t.T.cov(), cov, rtol=0, atol=0.01)
    assert (COV.diagonal() - cov.diagonal()).min() > 0.01  # the measurement tells something of every element


def test_clipping_comes_after_the_correction():
    far = Measurement(lambda x: x, torch.full((2, 3), 50.0, dtype=torch.float64), 0.01)
    estimate = MMPS(process(X0()), far)(noise(2), torch.tensor([30, 30]), clip=True)
    assert estimate.x_0.abs().max() == 1


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.parametrize(("said", "zeta"), [((0.3,), 0.3), ((), 1.0)], ids=["zeta=0.3", "zeta=1 by default"])
def test_dps_moves_x_s_along_the_gradient(prediction, said, zeta):
    t, s, x_t = torch.tensor([5, 40]), torch.tensor([4, 20]), noise(2)
    p = process(prediction)
    before, after = p(x_t, t, s), DPS(p, measured(2), *said)(x_t, t, s)
    for k, time in enumerate(t.tolist()):
        a = q.alpha_bar[time]
        jacobian = a.sqrt() * COV @ torch.linalg.inv(a * COV + (1 - a) * torch.eye(3))
        residual = Y - A @ before.x_0[k]
        want = zeta * jacobian.T @ A.T @ residual / residual.norm()
        torch.testing.assert_close(after.step.mean[k] - before.step.mean[k], want, rtol=1e-6, atol=1e-8)


def repainted(again, n=6000):
    known, mask = (torch.tensor(v, dtype=torch.float64).expand(n, 3) for v in ([0.9, 0.0, 0.0], [1.0, 0.0, 0.0]))
    *_, last = repaint(process(Epsilon()), known, mask, Ancestral(), noise(n), rng(1), again=again)
    assert (last.x_t[:, 0] == 0.9).all()
    return last.x_t[:, 1:]


@pytest.mark.long
def test_repaint_fills_in_what_goes_with_the_known_part():
    first = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    mean, cov = conditional(MEAN, COV, first, torch.tensor([0.9], dtype=torch.float64), 0.0)
    once, often = repainted(1), repainted(12)
    assert (often.mean(0) - mean[1:]).abs().max() < 0.04
    correlation = cov[1, 2] / (cov[1, 1] * cov[2, 2]).sqrt()
    assert (often.T.corrcoef()[0, 1] - correlation).abs() < 0.08
    assert (once.mean(0) - mean[1:]).abs().max() > 2 * (often.mean(0) - mean[1:]).abs().max()


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(7)], ids=["every t", "7 of them"])
def test_repaint_is_algorithm_1_of_its_paper(sampler):
    """The walk equals Lugmayr et al. 2022 written out with U = 3, by the optimal estimate cut to [-1, 1]."""
    times = [*sampler.steps(q), 0]
    known, mask = noise(4, 5), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(4, 3)
    states = list(repaint(process(Epsilon()), known, mask, sampler, noise(4), draw := rng(1), again=3))
    again, x_t = rng(1), noise(4)

    def drawn():
        return torch.randn(4, 3, generator=again, dtype=torch.float64)

    alpha_bar = q.alpha_bar.double()
    for (t, s), state in zip(pairwise(times), states, strict=True):
        a_t, a_s = alpha_bar[t], alpha_bar[s]
        beta = 1 - a_t / a_s
        for u in (1, 2, 3):
            z, epsilon = drawn(), drawn()
            if s == 0:
                z, epsilon = 0 * z, 0 * epsilon
            of_known = a_s.sqrt() * known + (1 - a_s).sqrt() * epsilon
            x_0 = process(Epsilon())(x_t, torch.full((4,), t)).x_0.clamp(-1, 1)
            mean = (a_s.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - a_s) * x_t) / (1 - a_t)
            unknown = mean + (beta * (1 - a_s) / (1 - a_t)).sqrt() * z
            x_s = mask * of_known + (1 - mask) * unknown
            x_t = x_s if u == 3 else (1 - beta).sqrt() * x_s + beta.sqrt() * drawn()
        torch.testing.assert_close(state.x_t, x_t, rtol=1e-5, atol=1e-6)
    assert torch.equal(draw.get_state(), again.get_state())


@pytest.mark.parametrize("sampler", [Ancestral(5), DDIM(5), Heun(5)], ids=by_name)
def test_repaint_visits_each_time_of_the_sampler_once(sampler):
    p = process(X0())
    states = list(repaint(p, noise(2), torch.ones(2, 3), sampler, noise(2), rng(), again=3))
    assert [state.t for state in states] == [*dict.fromkeys(sampler.steps(p.q)), 0][1:]
    assert torch.equal(states[-1].x_t, noise(2))


def test_repaint_keeps_no_graph():
    p = ReverseProcess(Trainable(), q, X0(), Learned())
    states = repaint(p, noise(2), torch.zeros(2, 3), Ancestral(3), noise(2), rng(), again=2)
    assert not any(state.x_t.requires_grad or state.x_0.requires_grad for state in states)
