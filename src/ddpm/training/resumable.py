"""Whether training can go on from what a checkpoint holds beside the weights: checked before any of it is used."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm.checkpoints.checkpoint import check_weights, misfit
from ddpm.config.errors import first_line
from ddpm.messages import printable
from ddpm.training.module import DiffusionModule

SCALES = 2.0**-24, 2.0**100  # of the loss in float16: far beyond those that a run comes to


def check_training(content: Mapping[str, Any], module: DiffusionModule) -> None:
    """Check that training can go on from a checkpoint, before any of it is used: fused kernels check no shapes.

    Args:
        module: what is to be trained. Its optimizer is Adam, or one whose further groups keep no `exp_avg_sq`.

    Raises:
        ValueError: it cannot.
    """
    weights, expected = content["state_dict"], module.state_dict()
    if strange := [name for name, value in weights.items() if not isinstance(value, Tensor) or value.is_meta]:
        raise ValueError(f"{printable(strange[0])} is no tensor of numbers")
    check_weights({key: value for key, value in weights.items() if key.startswith("p.")})
    if problem := misfit(weights, expected):
        raise ValueError(problem)
    optimizer = module.optimizer_settings.optimizer(module.p)
    try:
        [saved], [scheduler] = content["optimizer_states"], content["lr_schedulers"]
        _check_optimizer(saved, optimizer, _moved(weights, module, optimizer) if content["global_step"] else None)
        _check_schedule(scheduler, optimizer, content["global_step"])
        if "MixedPrecision" in content:  # of trainer.precision=16-mixed
            _check_scaler(content["MixedPrecision"])
    except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"it lacks what training needs to go on ({first_line(error)})") from None


def _moved(weights: Mapping[str, Tensor], module: DiffusionModule, optimizer: torch.optim.Optimizer) -> set[int]:
    """The numbers, in the optimizer, of the weights that training has moved: their average is not what they are.

    What is frozen, or not used, never has a gradient, and then no moments either.
    """
    names = {weight: name for name, weight in module.p.named_parameters()}
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    return {
        index
        for index, weight in enumerate(trained)
        if not torch.equal(weights[f"p.{names[weight]}"], weights[f"p_ema.{names[weight]}"])
    }


def _check_optimizer(saved: Mapping[str, Any], fresh: torch.optim.Optimizer, moved: set[int] | None) -> None:
    """Whether an optimizer's state_dict is of `fresh`'s weights and settings, with finite moments for what has moved.

    Args:
        moved: the numbers of the weights that must have moments; None before the first step, when none may.
    """
    own = ("params", "lr", "initial_lr")  # what a run of ours sets; the rest is the optimizer's defaults, always
    shapes = [weight.shape for group in fresh.param_groups for weight in group["params"]]
    if len(saved["param_groups"]) != len(fresh.param_groups):
        raise ValueError("its optimizer is of other weights")
    kept: list[set[str]] = []  # by weight: its moments
    for group, known in zip(saved["param_groups"], fresh.state_dict()["param_groups"], strict=True):
        if group["params"] != known["params"]:
            raise ValueError("its optimizer is of other weights")
        needed = [key for key in known if key in ("betas", "eps", "weight_decay")]  # what Adam cannot fill in
        others = [key for key in {**group, **dict.fromkeys(needed)} if key not in own]
        if strange := [key for key in others if key not in known or key not in group or group[key] != known[key]]:
            raise ValueError(f"its optimizer has another {printable(strange[0])} than a run of ours")
        if not all(_is_rate(group[key]) for key in ("lr", "initial_lr")):
            raise ValueError("its learning rates are of the wrong kind")
        if group["initial_lr"] != known["lr"] or group["lr"] > known["lr"]:
            raise ValueError("its learning rates are other ones than its configuration has")
        kept += [{"exp_avg"} if "momentum" in known else {"exp_avg", "exp_avg_sq"} for _ in known["params"]]
    if not (moved or set()) <= saved["state"].keys() <= (set() if moved is None else set(range(len(shapes)))):
        raise ValueError("its optimizer has moments of other weights")
    for index, state in saved["state"].items():
        for name in sorted(kept[index]):
            check_weights({f"the optimizer's {name}": state[name]})
            if state[name].shape != shapes[index]:
                raise ValueError(
                    f"the optimizer's {name} of weight {index} has shape {list(state[name].shape)}, and the weight "
                    f"{list(shapes[index])}"
                )
        if "exp_avg_sq" in kept[index] and state["exp_avg_sq"].min() < 0:
            raise ValueError(f"the optimizer's exp_avg_sq of weight {index} has negative squares")
        steps = state["step"]
        if isinstance(steps, Tensor) and steps.numel() == 1 and not steps.is_meta:
            steps = steps.item()
        if state.keys() != {"step", *kept[index]} or not _is_rate(steps):
            raise ValueError("its optimizer's steps are of the wrong kind")


def _check_schedule(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Whether a scheduler's state_dict is one of this optimizer's learning rates, after so many steps."""
    groups = len(optimizer.param_groups)
    known = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda _: 1.0] * groups).state_dict()
    if not all(_is_rate(rate) for rate in saved["base_lrs"]):
        raise ValueError("its learning rates are of the wrong kind")
    if (
        not saved.keys() <= known.keys()
        or saved["lr_lambdas"] != [None] * groups
        or len(saved["base_lrs"]) != groups
        or not all(isinstance(count := saved[key], int) and count >= 0 for key in ("last_epoch", "_step_count"))
        or saved["last_epoch"] != step
    ):
        raise ValueError("its schedule of the learning rate is of the wrong kind")
    if saved["base_lrs"] != known["base_lrs"]:
        raise ValueError("its learning rates are other ones than its configuration has")


def _check_scaler(saved: Mapping[str, Any]) -> None:
    """Whether a state_dict is one of what scales the loss in float16."""
    usual = torch.amp.GradScaler("cpu").state_dict()
    if not (
        saved.keys() == usual.keys()
        and all(type(value) is type(usual[key]) for key, value in saved.items())
        and all(saved[key] == usual[key] for key in ("growth_factor", "backoff_factor", "growth_interval"))
        and SCALES[0] <= saved["scale"] <= SCALES[1]  # else every step would be skipped, for ever
        and 0 <= saved["_growth_tracker"] < saved["growth_interval"]
    ):
        raise ValueError("its scale of the loss is of the wrong kind")


def _is_rate(value: Any) -> bool:
    """Whether this is a number of at least 0 that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
