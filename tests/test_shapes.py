"""Annotated shapes are checked while the tests run, in the first calls of each."""

import jaxtyping
import pytest
import shapes
import torch

from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedule import linear


@pytest.fixture
def wrong():
    """A call that PyTorch would broadcast, with one t for two examples."""
    q, x_0 = ForwardProcess(linear(10)), torch.zeros(2, 3)
    return lambda: q.diffuse(x_0, torch.tensor([3]), x_0)


@pytest.mark.parametrize("time", ["first", "again"])  # whatever the test before has used up
def test_a_shape_that_is_not_the_annotated_one_is_noticed(wrong, time):
    with pytest.raises(jaxtyping.TypeCheckError, match="diffuse"):
        wrong()
    shapes.left = 0
    wrong()  # after the first calls it is not
