"""Dropout against PyTorch's: the same distribution, from other random numbers."""

import math

import pytest
import torch
from torch import nn

from ddpm.networks.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_with_its_probability_and_scales_what_stays(p, dtype):
    torch.manual_seed(0)
    n = 400_003  # not a multiple of the four that one draw gives
    out = Dropout(p)(torch.ones(n, dtype=dtype)).float()
    nothing, scaled = out.unique().tolist()
    assert (nothing, scaled) == (0.0, pytest.approx(1 / (1 - p), rel=2**-8 if dtype == torch.bfloat16 else 2**-12))
    assert abs((out == 0).sum().item() - n * p) < 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5])
def test_neighbours_are_dropped_independently(lag):
    torch.manual_seed(1)
    kept = Dropout(0.3)(torch.ones(1_000_000)) > 0
    both = (kept[:-lag] & kept[lag:]).double().mean().item()
    assert both == pytest.approx(0.49, abs=5 * math.sqrt(0.49 * 0.51 / 1e6) * 1.5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_the_mask_and_the_layout_stays(layout):
    torch.manual_seed(2)
    x = torch.ones(2, 8, 3, 5).to(memory_format=layout).requires_grad_()
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert out.is_contiguous(memory_format=layout)
    assert 0 < (out == 0).float().mean() < 1


def test_takes_what_is_not_dense():
    torch.manual_seed(3)
    out = Dropout(0.5)(torch.ones(64, 64)[:, ::2])
    assert out.shape == (64, 32)
    assert 0.4 < (out == 0).float().mean() < 0.6


def test_a_seed_repeats_it():
    x = torch.randn(3, 4, 5)
    torch.manual_seed(4)
    first = Dropout(0.5)(x)
    torch.manual_seed(4)
    assert torch.equal(Dropout(0.5)(x), first)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything(p):
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(p)(x), nn.Dropout(p)(x))


def test_evaluation_changes_nothing():
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(0.9).eval()(x), x)
