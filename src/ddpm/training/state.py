"""Whether training can go on from what a checkpoint holds beside the weights: checked before any of it is used."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm.checkpoints.checkpoint import check_weights, misfit
from ddpm.config.errors import first_line
from ddpm.messages import printable


def check_training(
    content: Mapping[str, Any], expected: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Check that training can go on from a checkpoint, before any of it is used: fused kernels check no shapes.

    Args:
        expected: the state_dict of the module that is to be trained.
        optimizer: a fresh one of that module: Adam, or one whose further groups keep no `exp_avg_sq`.

    Raises:
        ValueError: it cannot.
    """
    if problem := misfit(content["state_dict"], expected):
        raise ValueError(problem)
    try:
        [saved], [scheduler] = content["optimizer_states"], content["lr_schedulers"]
        _check_optimizer(saved, optimizer, begun=bool(content["global_step"]))
        _check_schedule(scheduler, optimizer)
        if (scaler := content.get("MixedPrecision")) is not None:  # of trainer.precision=16-mixed
            _check_scaler(scaler)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"it lacks what training needs to go on ({first_line(error)})") from None


def _check_optimizer(saved: Mapping[str, Any], fresh: torch.optim.Optimizer, *, begun: bool) -> None:
    """Whether an optimizer's state_dict is of `fresh`'s weights and settings, with finite moments for each weight."""
    own = ("params", "lr", "initial_lr")  # what a run of ours sets; the rest is the optimizer's defaults, always
    shapes = [weight.shape for group in fresh.param_groups for weight in group["params"]]
    if len(saved["param_groups"]) != len(fresh.param_groups):
        raise ValueError("its optimizer is of other weights")
    kept: list[set[str]] = []  # by weight: its moments
    for group, known in zip(saved["param_groups"], fresh.state_dict()["param_groups"], strict=True):
        if group["params"] != known["params"]:
            raise ValueError("its optimizer is of other weights")
        others = [key for key in group if key not in own]
        if strange := [key for key in others if key not in known or group[key] != known[key]]:
            raise ValueError(f"its optimizer has another {printable(strange[0])} than a run of ours")
        if not all(_is_rate(group[key]) for key in ("lr", "initial_lr")):
            raise ValueError("its learning rates are of the wrong kind")
        kept += [{"exp_avg"} if "momentum" in known else {"exp_avg", "exp_avg_sq"} for _ in known["params"]]
    if saved["state"].keys() != (set(range(len(shapes))) if begun else set()):
        raise ValueError("its optimizer has moments of other weights")
    for index, state in saved["state"].items():
        for name in sorted(kept[index]):
            check_weights({f"the optimizer's {name}": state[name]})
            if state[name].shape != shapes[index]:
                raise ValueError(
                    f"the optimizer's {name} of weight {index} has shape {list(state[name].shape)}, and the weight "
                    f"{list(shapes[index])}"
                )
        if state.keys() != {"step", *kept[index]} or not 0 <= float(state["step"]) < math.inf:
            raise ValueError("its optimizer's steps are of the wrong kind")


def _check_schedule(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Whether a scheduler's state_dict is one of this optimizer's learning rates."""
    groups = len(optimizer.param_groups)
    known = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 1.0] * groups).state_dict()
    if not all(_is_rate(rate) for rate in saved["base_lrs"]):
        raise ValueError("its learning rates are of the wrong kind")
    if (
        not saved.keys() <= known.keys()
        or saved["lr_lambdas"] != [None] * groups
        or len(saved["base_lrs"]) != groups
        or not all(isinstance(count := saved[key], int) and count >= 0 for key in ("last_epoch", "_step_count"))
    ):
        raise ValueError("its schedule of the learning rate is of the wrong kind")


def _check_scaler(saved: Mapping[str, Any]) -> None:
    """Whether a state_dict is one of what scales the loss in float16."""
    usual = torch.amp.GradScaler("cpu").state_dict()
    if not (
        saved.keys() == usual.keys()
        and all(type(value) is type(usual[key]) and _is_rate(value) for key, value in saved.items())
        and saved["scale"] > 0  # else every step would be skipped, for ever
    ):
        raise ValueError("its scale of the loss is of the wrong kind")


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
