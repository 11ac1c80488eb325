"""What is said and kept of a step whose numbers are not finite."""

import pytest
import torch
from safetensors.torch import load_file

from ddpm.training.divergence import DivergedError, Step, raise_diverged


def step(losses, norm=float("nan")):
    n = len(losses)
    batch = torch.arange(4.0 * n).reshape(n, 1, 2, 2)
    parts = {"batch": batch, "t": torch.arange(10, 10 + n), "loss": torch.tensor(losses), "labels": torch.arange(n)}
    return Step(17, torch.tensor(norm), parts)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0, float("nan"), 2.0, float("inf")], "the loss is not finite at t = 11, 13;"),
        ([1.0, 3.0, 2.0], "the losses are finite, the largest at t = 11, 12, 10;"),
        ([float("nan")] * 12, "the loss is not finite at t = 10, 11, 12, 13, 14, 15, 16, 17, ...;"),
    ],
)
def test_the_message_names_the_worst_times_and_the_file(losses, said, tmp_path):
    with pytest.raises(DivergedError) as caught:
        raise_diverged(step(losses), tmp_path)
    file = tmp_path / "diverged_step_0000017.safetensors"
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert "diverged at step 17" in str(caught.value)
    kept = load_file(file)
    for name in ("batch", "t", "labels"):
        assert torch.equal(kept[name], step(losses).parts[name])
    assert kept["gradient_norm"].isnan().tolist() == [True]
    torch.testing.assert_close(kept["loss"], step(losses).parts["loss"], equal_nan=True)
