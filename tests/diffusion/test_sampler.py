import math
from itertools import pairwise

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import law, optimal
from torch import nn

from ddpm.diffusion.prediction import X0, Epsilon, Mu, Velocity
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral, Sampler
from ddpm.diffusion.schedule import cosine, linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned, LearnedRange
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.deis import DEIS
from ddpm.samplers.dpm_solver import DPMSolver, DPMSolver2S
from ddpm.samplers.heun import Heun
from ddpm.samplers.multistep import chain
from ddpm.samplers.sa_solver import SASolver
from ddpm.samplers.unipc import UniPC

PREDICTIONS = [Epsilon(), Mu(), X0(), Velocity()]
VARIANCES = [FixedLarge(), FixedSmall(), Learned(), LearnedRange()]
MEAN, STD = 0.3, 0.25


def by_name(argument):
    return type(argument).__name__


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def run(sampler, p, x_T, seed=0, *, clip=False):
    return list(sampler(p, x_T, rng(seed), clip=clip))


def gaussian_noise(n, dtype=torch.float32):
    return torch.randn(n, 1, generator=rng(1), dtype=dtype)


class AsPrediction(nn.Module):
    """One model of x_0, which is no Gaussian's, read out in the space of any prediction."""

    def __init__(self, q, prediction):
        super().__init__()
        self.q, self.prediction = q, prediction

    def forward(self, x, t_from_0):
        t = t_from_0 + 1
        x_0 = 1.4 * torch.sin(2 * x + t[:, None].to(x.dtype) / self.q.T)
        noise = (x - self.q.signal(t, x) * x_0) / self.q.noise_scale(t, x)
        return self.prediction.target(self.q, x_0, noise, t)


def x_0_of(x, time):
    """The same model for one number, at time = t / T."""
    return 1.4 * math.sin(2 * x + time)


def model(q, prediction, variance=None):
    return ReverseProcess(AsPrediction(q, prediction), q, prediction, variance or FixedSmall())


# The data come out --------------------------------------------------------------------------------------------------


WALKS = {  # sampler, variance, how far the deviation may be from the data's
    "ancestral_large": (Ancestral(), FixedLarge(), 0.015),
    "ancestral_small": (Ancestral(), FixedSmall(), 0.03),
    "ancestral_learned": (Ancestral(), Learned(), 0.01),
    "ancestral_learned_range_strided": (Ancestral(50), LearnedRange(), 0.015),
    "ancestral_learned_strided": (Ancestral(30, "quadratic"), Learned(), 0.015),
    "ddim": (DDIM(None), FixedLarge(), 0.02),
    "ddim_strided": (DDIM(40, spacing="quadratic"), FixedLarge(), 0.02),
    "dpm_solver_strided": (DPMSolver(20), FixedLarge(), 0.015),
    "dpm_solver": (DPMSolver(None), FixedLarge(), 0.006),
}


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.parametrize(("sampler", "variance", "tolerance"), WALKS.values(), ids=WALKS)
@pytest.mark.long
def test_the_optimal_network_samples_the_data(prediction, sampler, variance, tolerance):
    p = optimal(ForwardProcess(linear(100, rescale=True)), prediction, variance, MEAN, STD)
    x_0 = run(sampler, p, gaussian_noise(20_000))[-1].x_t
    assert x_0.mean().item() == pytest.approx(MEAN, abs=0.008)
    assert x_0.std().item() == pytest.approx(STD, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=by_name)
@pytest.mark.parametrize("variance", VARIANCES, ids=by_name)
def test_the_optimal_network_samples_the_data_over_1000_steps(prediction, variance):
    p = optimal(ForwardProcess(linear(1000)), prediction, variance, MEAN, STD)
    x_0 = run(Ancestral(), p, gaussian_noise(20_000))[-1].x_t
    assert x_0.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x_0.std().item() == pytest.approx(STD, abs=0.01)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("steps", [None, 12, 2, 1])
@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall()], ids=by_name)
def test_ancestral_samples_have_the_literal_law(steps, spacing, variance):
    betas, sampler = reference.linear(50, beta_T=0.3), Ancestral(steps, spacing)
    q = ForwardProcess(linear(50, beta_T=0.3))
    times = sampler.steps(q)
    full, respaced = reference.Process(betas), reference.Process(reference.respaced(betas, times[::-1]))

    def step(x, t, s, z):
        a, k = full.alpha_bar[t], len(times) - times.index(t)
        x_0 = MEAN + math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a) * (x - math.sqrt(a) * MEAN)
        log_var = respaced.fixed_large(k) if isinstance(variance, FixedLarge) and k > 1 else None
        if isinstance(variance, FixedSmall) and k > 1:
            log_var = respaced.fixed_small(k)
        return respaced.mu_tilde(x, x_0, k) + (math.exp(0.5 * log_var) * z if k > 1 else 0.0)

    p = optimal(q, Epsilon(), variance, MEAN, STD)
    x_0 = run(sampler, p, gaussian_noise(40_000))[-1].x_t
    mean, std = law(step, times)
    assert x_0.mean().item() == pytest.approx(mean, abs=4 * std / 200)
    assert x_0.std().item() == pytest.approx(std, rel=0.015)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("steps", [None, 12, 1])
@pytest.mark.long
def test_ddim_samples_have_the_literal_law(steps, spacing, eta):
    full, sampler = reference.Process(reference.linear(50, beta_T=0.3)), DDIM(steps, eta, spacing)

    def step(x, t, s, z):
        a = full.alpha_bar[t]
        epsilon = math.sqrt(1 - a) * (x - math.sqrt(a) * MEAN) / (a * STD**2 + 1 - a)
        return reference.ddim_step(full, x, epsilon, t, s, eta, z)

    p = optimal(ForwardProcess(linear(50, beta_T=0.3)), Velocity(), FixedLarge(), MEAN, STD)
    x_0 = run(sampler, p, gaussian_noise(40_000))[-1].x_t
    mean, std = law(step, sampler.steps(p.q))
    assert x_0.mean().item() == pytest.approx(mean, abs=4 * std / 200)
    assert x_0.std().item() == pytest.approx(std, rel=0.015)


# Equations, literally -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall()], ids=by_name)
def test_ancestral_is_algorithm_2(variance):
    q, literal, x_T = (
        ForwardProcess(linear(30)),
        reference.Process(reference.linear(30)),
        gaussian_noise(1, torch.double),
    )
    g, x = rng(5), x_T.item()
    for state in Ancestral()(model(q, Epsilon(), variance), x_T, rng(5), clip=False):
        t = state.t + 1
        x_0 = x_0_of(x, t / 30)
        epsilon = (x - math.sqrt(literal.alpha_bar[t]) * x_0) / math.sqrt(1 - literal.alpha_bar[t])
        log_var = literal.fixed_large(t) if isinstance(variance, FixedLarge) else literal.fixed_small(t)
        z = torch.randn(1, 1, generator=g, dtype=torch.double).item()
        x = reference.ancestral_step(literal, x, epsilon, t, log_var, z)
        assert state.x_t.item() == pytest.approx(x, abs=1e-9)
        assert state.x_0.item() == pytest.approx(x_0, abs=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_eqs_12_and_16(eta):
    q, literal, x_T = (
        ForwardProcess(linear(30)),
        reference.Process(reference.linear(30)),
        gaussian_noise(1, torch.double),
    )
    sampler, g, x = DDIM(7, eta), rng(5), x_T.item()
    for (t, s), state in zip(
        pairwise([*sampler.steps(q), 0]), sampler(model(q, Epsilon()), x_T, rng(5), clip=False), strict=True
    ):
        epsilon = (x - math.sqrt(literal.alpha_bar[t]) * x_0_of(x, t / 30)) / math.sqrt(1 - literal.alpha_bar[t])
        z = torch.randn(1, 1, generator=g, dtype=torch.double).item()
        x = reference.ddim_step(literal, x, epsilon, t, s, eta, z)
        assert state.x_t.item() == pytest.approx(x, abs=1e-9)


@pytest.mark.parametrize(
    "sampler",
    [
        *(Ancestral(7), DDIM(7), DDIM(7, 0.5), DPMSolver(7), DPMSolver(7, eta=0.5), DPMSolver2S(7), DEIS(7), UniPC(7)),
        *(Heun(7), Heun(7, S_churn=5.0), SASolver(7, S_max=None), SASolver(7, tau=0.0)),
    ],
    ids=lambda sampler: sampler.label,
)
def test_a_sampler_says_whether_it_draws_noise(sampler):
    q, x_T = ForwardProcess(linear(50)), gaussian_noise(20)
    one, other = (run(sampler, model(q, X0()), x_T, seed)[-1].x_t for seed in (0, 1))
    assert sampler.stochastic == (not torch.equal(one, other))


@pytest.mark.parametrize("steps", [3, 4, 10, 30])
def test_dpm_solver_is_algorithm_2_of_its_paper(steps):
    q, literal, x_T = (
        ForwardProcess(cosine(30)),
        reference.Process(reference.cosine(30)),
        gaussian_noise(1, torch.double),
    )
    sampler = DPMSolver(steps)
    *_, at_1, at_0 = run(sampler, model(q, X0()), x_T)

    want = reference.dpm_solver(literal, x_T.item(), lambda x, t: x_0_of(x, t / 30), sampler.steps(q))
    assert at_1.t == 1
    assert at_1.x_t.item() == pytest.approx(want, abs=1e-9)
    assert at_0.x_t.item() == pytest.approx(x_0_of(want, 1 / 30), abs=1e-9)


@pytest.mark.long
def test_dpm_solver_is_of_second_order_and_ddim_of_first():
    q = ForwardProcess(linear(4000, rescale=True))
    p = optimal(q, X0(), FixedSmall(), MEAN, STD)
    x_T = gaussian_noise(50, torch.double)

    def marginal(t):
        return q.alpha_bar[t].sqrt() * MEAN, (q.alpha_bar[t] * STD**2 + 1 - q.alpha_bar[t]).sqrt()

    (mean_T, std_T), (mean_1, std_1) = marginal(4000), marginal(1)
    exact = mean_1 + std_1 / std_T * (x_T - mean_T)  # the probability flow of Gaussian data

    def error(sampler):
        return (run(sampler, p, x_T)[-2].x_t - exact).abs().max().item()

    ddim = [error(DDIM(n, spacing="quadratic")) for n in (20, 40, 80)]
    dpm_solver = [error(DPMSolver(n)) for n in (20, 40, 80)]
    for a, b in pairwise(ddim):
        assert 1.7 < a / b < 2.3
    for a, b in pairwise(dpm_solver):
        assert 3.0 < a / b < 5.5
    assert dpm_solver[-1] < 0.1 * ddim[-1]


# Relations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize(
    ("prediction", "clip"),
    [(Epsilon(), True), (X0(), True), (Velocity(), True), *((prediction, False) for prediction in PREDICTIONS)],
    ids=lambda value: str(value) if isinstance(value, bool) else by_name(value),
)
@pytest.mark.long
def test_ddim_with_eta_1_over_all_steps_is_ancestral_with_fixed_small(schedule, prediction, clip):
    q, x_T = ForwardProcess(schedule(50)), gaussian_noise(20, torch.double)
    p = model(q, prediction, FixedSmall())
    for ddim, ancestral in zip(
        run(DDIM(None, eta=1.0), p, x_T, clip=clip), run(Ancestral(), p, x_T, clip=clip), strict=True
    ):
        torch.testing.assert_close(ddim, ancestral, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(7), DDIM(7, 0.5), DPMSolver(7)], ids=by_name)
@pytest.mark.parametrize("clip", [False, True])
def test_one_model_samples_the_same_under_every_prediction(sampler, clip):
    q, x_T = ForwardProcess(linear(50)), gaussian_noise(20, torch.double)
    want = run(sampler, model(q, X0()), x_T, clip=clip)[-1].x_t
    for prediction in (Epsilon(), Velocity(), *([] if clip else [Mu()])):
        torch.testing.assert_close(run(sampler, model(q, prediction), x_T, clip=clip)[-1].x_t, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", [DDIM(7, 0.5), DPMSolver(7)], ids=by_name)
def test_ddim_and_dpm_solver_do_not_ask_for_the_variance(sampler):
    q, x_T = ForwardProcess(linear(50)), gaussian_noise(20)
    small, large = (run(sampler, optimal(q, Epsilon(), v), x_T)[-1].x_t for v in (FixedSmall(), FixedLarge()))
    assert torch.equal(small, large)


@pytest.mark.parametrize("sampler", [Ancestral(None), Ancestral(9, "quadratic"), DDIM(9), DPMSolver(9)], ids=by_name)
def test_clipped_samples_are_in_range_and_every_state_is_yielded(sampler):
    q, calls = ForwardProcess(linear(50)), []
    p = model(q, Epsilon())
    p.network.register_forward_hook(lambda *_: calls.append(1))
    states = run(sampler, p, 3 * gaussian_noise(20), clip=True)
    assert [state.t for state in states] == [*sampler.steps(q)[1:], 0]
    assert len(states) == len(calls) == sampler.num_evaluations(q)
    assert all(state.x_0.abs().max() <= 1 for state in states)
    assert torch.equal(states[-1].x_t, states[-1].x_0)


def test_the_estimate_is_clipped_unless_told_otherwise():
    """The original's sampling clips by default, too (`clip_denoised` of its p_sample_loop)."""
    q = ForwardProcess(linear(30))
    p, x_T = ReverseProcess(AsPrediction(q, Epsilon()), q, Epsilon(), FixedLarge()), gaussian_noise(64)
    ours, clipped, free = (
        [state.x_0 for state in Ancestral()(p, x_T, rng(), **said)] for said in ({}, {"clip": True}, {"clip": False})
    )
    assert all(torch.equal(one, other) for one, other in zip(ours, clipped, strict=True))
    assert max(x_0.abs().max() for x_0 in free) > 1.1


def test_mu_keeps_its_raw_mean_on_the_full_chain():
    q, x_T = ForwardProcess(linear(50)), 3 * gaussian_noise(20)
    free, clipped = (run(Ancestral(), model(q, Mu()), x_T, clip=clip) for clip in (False, True))
    assert all(torch.equal(a.x_t, b.x_t) for a, b in zip(free, clipped, strict=True))
    assert max(state.x_0.abs().max() for state in free) > 1
    assert max(state.x_0.abs().max() for state in clipped) == 1


# Noise and gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [Ancestral(5), DDIM(5, 1.0), DDIM(5, 0.0), DPMSolver(5)], ids=by_name)
def test_noise_comes_from_the_generator_only(sampler):
    q, x_T, before = ForwardProcess(linear(50)), gaussian_noise(20), torch.get_rng_state()
    p = model(q, Epsilon(), FixedLarge())
    first, again, other = (run(sampler, p, x_T, seed)[-1].x_t for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    deterministic = isinstance(sampler, DPMSolver) or (isinstance(sampler, DDIM) and sampler.eta == 0)
    assert torch.equal(first, other) == deterministic


@pytest.mark.parametrize("sampler", [Ancestral(1), DDIM(1, 1.0), DPMSolver(3)], ids=by_name)
def test_the_last_step_adds_no_noise(sampler):
    p, x_T = model(ForwardProcess(linear(50)), Epsilon(), FixedLarge()), gaussian_noise(20)
    assert torch.equal(run(sampler, p, x_T, 0)[-1].x_t, run(sampler, p, x_T, 1)[-1].x_t)


def test_sampling_builds_no_graph():
    q = ForwardProcess(linear(10))
    p = ReverseProcess(nn.Bilinear(1, 1, 1), q, Epsilon(), FixedSmall())
    p.network = _Linear()
    for state in Ancestral()(p, gaussian_noise(2), rng()):
        assert not state.x_t.requires_grad
        assert torch.is_grad_enabled()  # between steps the caller's mode holds


class _Linear(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)

    def forward(self, x, t):
        return super().forward(x)


def test_a_chain_that_begins_at_one_of_its_times_goes_on_as_the_whole_one():
    q, sampler = ForwardProcess(linear(50)), DDIM(7)
    p, x_T = model(q, X0()), gaussian_noise(3, torch.double)
    whole = run(sampler, p, x_T)
    for k in range(5):
        rest = list(sampler(p, whole[k].x_t, rng(), clip=False, start=whole[k].t))
        assert [state.t for state in rest] == [state.t for state in whole[k + 1 :]]
        assert torch.equal(rest[-1].x_t, whole[-1].x_t)


def test_a_chain_that_begins_between_its_times_goes_on_with_those_below():
    q = ForwardProcess(linear(50))
    seen = []
    p = ReverseProcess(AsPrediction(q, X0()), q, X0(), FixedSmall())
    p.network.register_forward_hook(lambda _, given, __: seen.append(given[1].unique().item() + 1))
    list(Ancestral(None, times=[50, 40, 20, 7])(p, gaussian_noise(2), rng(), start=33))
    assert seen == [33, 20, 7]


def test_one_noise_for_all_examples_is_that_of_one_example():
    """With it, samples differ only because they began at different x_T."""
    p, one = model(ForwardProcess(linear(20)), X0()), gaussian_noise(1)
    alone = run(Ancestral(), p, one)
    together = Ancestral()(p, one.expand(3, 1), rng(), clip=False, repeat_noise=True)
    for state, single in zip(together, alone, strict=True):
        torch.testing.assert_close(state.x_t, single.x_t.expand(3, 1))


class Remembering(Sampler):
    """Counts the visits that a step is told of."""

    stochastic = False

    def __init__(self, steps):
        super().__init__(steps)
        self.told = []

    def step(self, q, here, s, noise):
        self.told.append(len(chain(here, 100)))
        return here.estimate.x_0


def test_a_step_is_told_of_three_visits_before_it_and_no_more():
    """DEIS of order 3 needs three; if all were kept, every state of the chain would stay in memory."""
    sampler = Remembering(7)
    run(sampler, model(ForwardProcess(linear(50)), X0()), gaussian_noise(2))
    assert sampler.told == [1, 2, 3, 4, 4, 4, 4]


# Times --------------------------------------------------------------------------------------------------------------


SPACINGS = ["uniform", "quadratic", "log_snr", "karras"]


@given(T=st.integers(2, 1200), share=st.floats(0, 1), spacing=st.sampled_from(SPACINGS))
def test_walks_start_at_T_end_with_1_and_descend(T, share, spacing):
    steps, q = max(2, round(share * T)), ForwardProcess(linear(T, beta_T=0.01))
    for sampler in (Ancestral(steps, spacing), DDIM(steps, 0.0, spacing)):
        times = sampler.steps(q)
        assert (times[0], times[-1], len(times)) == (T, 1, steps)
        assert all(a > b for a, b in pairwise(times))


def test_uniform_spacing_is_that_of_improved_diffusion():
    from_0 = [t - 1 for t in DDIM(50).steps(ForwardProcess(linear(1000)))[::-1]]
    assert from_0[:6] == [0, 20, 41, 61, 82, 102]
    assert from_0[-3:] == [958, 979, 999]


def test_quadratic_spacing_is_dense_at_the_end():
    times = DDIM(10, spacing="quadratic").steps(ForwardProcess(linear(1000)))[::-1]
    for i, t in enumerate(times):
        assert t == pytest.approx(1 + 999 * (i / 9) ** 2, abs=0.5)


def test_all_T_steps_by_default():
    q = ForwardProcess(linear(5))
    assert Ancestral().steps(q) == [5, 4, 3, 2, 1]
    assert Ancestral().num_evaluations(q) == 5
    assert DDIM(None, spacing="quadratic").steps(q) == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(0), "at least 1"),
        (lambda: DDIM(10, eta=1.5), r"eta=1.5 must lie in \[0, 1\]"),
        (lambda: DDIM(10, eta=-0.1), "eta=-0.1"),
        (lambda: Ancestral(10, "cubic"), "not one of uniform, quadratic"),
        (lambda: DPMSolver(51).steps(ForwardProcess(linear(50))), "steps=51 exceeds T=50"),
    ],
)
def test_refuses_walks_that_do_not_exist(make, message):
    with pytest.raises(ValueError, match=message):
        make()
