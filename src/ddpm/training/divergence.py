"""Training that diverged: the message, and the file that keeps the batch to replay the step with."""

from pathlib import Path
from typing import NamedTuple, NoReturn

from safetensors.torch import save_file
from torch import Tensor

from ddpm.processes import RunFailedError, is_rank_zero

FEW = 8  # values of t that the message names


class DivergedError(RunFailedError):
    """A loss or gradient is no longer finite."""


class Step(NamedTuple):
    """An optimizer step that is about to be taken."""

    number: int
    gradient_norm: Tensor  # a scalar
    batch: Tensor  # the examples as the dataset has them, [b, ...]
    t: Tensor  # [b]
    loss: Tensor  # of each example, [b]


def raise_diverged(step: Step, folder: Path) -> NoReturn:
    """Write the batch, t, losses and gradient's norm into the run folder (on rank 0), and end the run.

    Raises:
        DivergedError: always.
    """
    file = folder / f"diverged_step_{step.number:07d}.safetensors"
    if is_rank_zero():
        tensors = {"batch": step.batch, "t": step.t, "loss": step.loss, "gradient_norm": step.gradient_norm.reshape(1)}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)
    worst = step.t[~step.loss.isfinite()]
    shown = (worst if len(worst) else step.t[step.loss.argsort(descending=True)]).tolist()
    which = "the loss is not finite" if len(worst) else "the losses are finite, the largest"
    dots = ", ..." if len(shown) > FEW else ""
    raise DivergedError(
        f"diverged at step {step.number}: the gradient is not finite (norm {float(step.gradient_norm)}); {which} at "
        f"t = {', '.join(map(str, shown[:FEW]))}{dots}; its batch is kept in {file}; try a smaller optimizer.lr, a "
        "smaller optimizer.grad_clip, a longer optimizer.warmup, or trainer.precision=32-true"
    )
