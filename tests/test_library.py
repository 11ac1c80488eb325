"""What a notebook imports."""

import math
import subprocess
import sys

import pytest
import torch
from random_checkpoint import saved

import ddpm
from ddpm.data.pixels import to_unit
from ddpm.diffusion.likelihood import evaluate_bound

SHAPE = (3, 1, 8, 8)


@pytest.fixture(scope="module")
def p(tmp_path_factory):
    return ddpm.load(saved(tmp_path_factory.mktemp("run") / "run.ckpt", "sampler.steps=5", "schedule.T=20"))


def test_importing_the_package_imports_no_torch():
    code = "import sys, ddpm; ddpm.__all__; dir(ddpm); assert not {'torch', 'hydra', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_there():
    assert set(ddpm.__all__) <= set(dir(ddpm))
    assert all(callable(getattr(ddpm, name)) for name in ddpm.__all__)
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        ddpm.smaple  # noqa: B018


def test_what_was_loaded_is_evaluated_and_not_trained(p):
    assert isinstance(p, ddpm.ReverseProcess)
    assert isinstance(p.q, ddpm.ForwardProcess)
    assert p.q.T == 20
    assert not p.training
    assert not any(parameter.requires_grad for parameter in p.parameters())


def test_samples_are_a_function_of_the_seed(p):
    images = ddpm.sample(p, SHAPE)
    assert images.dtype == torch.uint8
    assert images.shape == SHAPE
    assert torch.equal(images, ddpm.sample(p, SHAPE))
    assert not torch.equal(images, ddpm.sample(p, SHAPE, seed=1))
    assert not torch.equal(images, ddpm.sample(p, SHAPE, ddpm.DDIM(steps=5)))


def test_bits_per_dim_are_the_bound_s(p):
    images = ddpm.sample(p, SHAPE)
    bound = evaluate_bound(p, to_unit(images), torch.Generator().manual_seed(4))
    want = bound.nats / (math.prod(SHAPE[1:]) * math.log(2))
    torch.testing.assert_close(ddpm.bits_per_dim(p, images, seed=4), want)
