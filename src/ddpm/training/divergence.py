"""Training that diverged: the message, and the file that keeps the batch to replay the step with."""

from pathlib import Path
from typing import NamedTuple, NoReturn

from safetensors.torch import save
from torch import Tensor

from ddpm.files import write_whole
from ddpm.processes import RunFailedError, is_rank_zero

FEW = 8  # values of t that the message names


class DivergedError(RunFailedError):
    """A loss or gradient is no longer finite."""


class Step(NamedTuple):
    """An optimizer step that is about to be taken."""

    number: int
    gradient_norm: Tensor  # a scalar
    parts: dict[str, Tensor]  # of each example: the `batch` as the dataset has it, `t`, `loss`, and what was told of it


def raise_diverged(step: Step, folder: Path) -> NoReturn:
    """Write the batch, its condition, t, losses and gradient's norm into the run folder (on rank 0), and end the run.

    Raises:
        DivergedError: always.
    """
    file = folder / f"diverged_step_{step.number:07d}.safetensors"
    if is_rank_zero():
        tensors = {**step.parts, "gradient_norm": step.gradient_norm.reshape(1)}
        write_whole(file, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))
    t, loss = step.parts["t"], step.parts["loss"]
    worst = t[~loss.isfinite()]
    shown = (worst if len(worst) else t[loss.argsort(descending=True)]).tolist()
    which = "the loss is not finite" if len(worst) else "the losses are finite, the largest"
    dots = ", ..." if len(shown) > FEW else ""
    raise DivergedError(
        f"diverged at step {step.number}: the gradient is not finite (norm {float(step.gradient_norm)}); {which} at "
        f"t = {', '.join(map(str, shown[:FEW]))}{dots}; its batch is kept in {file}; try a smaller optimizer.lr "
        "(and optimizer.muon_lr, where it is set), a smaller optimizer.grad_clip, a longer optimizer.warmup, or "
        "trainer.precision=32-true"
    )
