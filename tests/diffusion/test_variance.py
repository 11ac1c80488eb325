import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedule import constant, linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, Learned, LearnedRange

T = 1000
q = ForwardProcess(linear(T))
literal = reference.Process(reference.linear(T))
times = st.integers(1, T)
steps = st.lists(st.integers(1, T), min_size=2, max_size=2, unique=True).map(sorted)


def log_var(variance, t, s, raw=None, process=q):
    x = torch.zeros(1, 1, dtype=torch.float64)
    value = None if raw is None else torch.full_like(x, raw)
    return variance.log_var(process, value, x, torch.tensor([t]), torch.tensor([s])).item()


@given(t=times)
def test_fixed_variances_are_the_literal_transcriptions(t):
    assert log_var(FixedLarge(), t, t - 1) == pytest.approx(literal.fixed_large(t), abs=1e-9)
    assert log_var(FixedSmall(), t, t - 1) == pytest.approx(literal.fixed_small(t), abs=1e-9)


def test_the_decoder_has_the_variance_of_the_second_step():
    want = -9.81672513529567
    assert log_var(FixedLarge(), 1, 0) == pytest.approx(want, abs=1e-10)
    assert log_var(FixedSmall(), 1, 0) == pytest.approx(want, abs=1e-10)
    assert math.exp(0.5 * want) == pytest.approx(0.0073846, abs=1e-7)


@given(step=steps)
def test_fixed_variances_of_a_long_step_are_those_of_the_respaced_process(step):
    s, t = step
    respaced = reference.Process(reference.respaced(reference.linear(T), [s, t]))
    assert log_var(FixedLarge(), t, s) == pytest.approx(respaced.fixed_large(2), abs=1e-9)
    assert log_var(FixedSmall(), t, s) == pytest.approx(respaced.fixed_small(2), abs=1e-9)


@given(t=times, v=st.floats(-1.5, 1.5))
def test_learned_range_is_the_literal_transcription(t, v):
    assert log_var(LearnedRange(), t, t - 1, v) == pytest.approx(reference.learned_range(literal, v, t), abs=1e-9)


@given(step=steps, v=st.floats(-1.5, 1.5))
def test_learned_range_of_a_long_step_is_that_of_the_respaced_process(step, v):
    s, t = step
    respaced = reference.Process(reference.respaced(reference.linear(T), [s, t]))
    assert log_var(LearnedRange(), t, s, v) == pytest.approx(reference.learned_range(respaced, v, 2), abs=1e-9)


@given(t=times, raw=st.floats(-30, 5))
def test_learned_is_the_raw_output_on_the_full_chain(t, raw):
    assert log_var(Learned(), t, t - 1, raw) == raw


@given(step=steps, share=st.floats(0, 1))
def test_learned_carries_its_share_to_a_long_step(step, share):
    s, t = step
    if t == s + 1:
        return
    low, high = math.log(q_low(t, t - 1)), math.log(q_high(t, t - 1))
    want = (1 - share) * math.log(q_low(t, s)) + share * math.log(q_high(t, s))
    got = log_var(Learned(), t, s, (1 - share) * low + share * high)
    gap = math.log(q_high(t, s) / q_low(t, s)) / math.log(q_high(t, t - 1) / q_low(t, t - 1))
    assert got == pytest.approx(want, abs=1e-12 * max(gap, 1e3))


def q_low(t, s):
    return q.beta_tilde(torch.tensor([t]), torch.tensor([s])).item()


def q_high(t, s):
    return q.beta(torch.tensor([t]), torch.tensor([s])).item()


@given(step=steps, raw=st.floats(-30, 5))
def test_learned_stays_within_beta_tilde_and_beta_on_a_long_step(step, raw):
    s, t = step
    if t == s + 1:
        return
    assert math.log(q_low(t, s)) - 1e-9 <= log_var(Learned(), t, s, raw) <= math.log(q_high(t, s)) + 1e-9


@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall(), Learned(), LearnedRange()])
@given(t=times)
def test_a_step_to_0_has_a_finite_variance(variance, t):
    assert math.isfinite(log_var(variance, t, 0, 0.5 if variance.learned else None))


def test_learned_trains_where_beta_tilde_and_beta_cannot_be_told_apart():
    process = ForwardProcess(constant(4000))
    assert process.alpha_bar[-1] < 1e-30
    x = torch.zeros(1, 1)
    raw = torch.full_like(x, math.log(0.02), requires_grad=True)
    t = torch.tensor([4000])
    Learned().log_var(process, raw, x, t, t - 1).sum().backward()
    assert raw.grad.item() == 1


@pytest.mark.parametrize("variance", [FixedLarge(), FixedSmall(), Learned(), LearnedRange()])
def test_shape_and_dtype_follow_the_data(variance):
    x, t = torch.zeros(2, 3, 4, 5), torch.tensor([1, 1000])
    raw = torch.zeros_like(x) if variance.learned else None
    got = variance.log_var(q, raw, x, t, t - 1)
    assert got.dtype == torch.float32
    assert torch.broadcast_shapes(got.shape, x.shape) == x.shape
