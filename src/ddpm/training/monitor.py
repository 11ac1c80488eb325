"""The best value of a monitored metric so far, and for how long there has been no better one. Without torch.

Both are functions of the logged values alone, so that a run that goes on and a report on it come to the same.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ddpm.config.errors import RequestError
from ddpm.config.grammar import nearest
from ddpm.metrics import registry

BOUND = "bound"  # `best.metric` of the held-out bound; any other is a quantity of a metric of samples
TIMESTEPS = 16  # of the T, at which validations estimate the bound of an example
PREFIX = "validation/"


@dataclass
class Monitor:
    """Follows a metric over the validations of a run.

    Attributes:
        metric: its name, as logged.
        higher: whether a higher value is better.
        min_delta: an improvement is larger than this, where patience is concerned.
        step: of the newest value; -1 before the first.
        best: the best value, and `best_step` its step.
        reference: the value on which the next must improve by `min_delta`.
        waited: values since then.
    """

    metric: str
    higher: bool = False
    min_delta: float = 0.0
    step: int = -1
    best: float | None = None
    best_step: int = -1
    reference: float | None = None
    waited: int = 0

    def see(self, step: int, value: float) -> bool:
        """Take in the value of a step, unless it was taken in before. Whether it is the best so far."""
        if step <= self.step:
            return False
        self.step = step
        if self._improves(value, self.reference, self.min_delta):
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        if not self._improves(value, self.best, 0.0):
            return False
        self.best, self.best_step = value, step
        return True

    def _improves(self, value: float, on: float | None, by: float) -> bool:
        if not math.isfinite(value) or on is None:
            return math.isfinite(value)
        return (value - on if self.higher else on - value) > by

    def at_end(self, patience: int | None) -> bool:
        """Whether there have been `patience` values without an improvement; None is patience without end."""
        return patience is not None and self.waited >= patience

    def why(self, patience: int) -> str:
        """Why the run ended, in one line."""
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        last = f"; the best was {self.best:.6g} at step {self.best_step:,}" if self.best is not None else ""
        return (
            f"stopped early at step {self.step:,}: {self.metric} has not improved{by} in {self.waited} validations "
            f"(stop.patience={patience}){last}"
        )

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def resume(self, state: Any) -> None:
        """Go on from what a checkpoint kept, if that is of the same metric; an earlier version's kept nothing.

        Raises:
            ValueError: it is not a monitor's state.
        """
        if state is None:
            return
        kept = of_state(state)
        if (kept.metric, kept.higher) == (self.metric, self.higher):
            self.__dict__ |= kept.state | {"min_delta": self.min_delta}


def of_state(state: Any) -> Monitor:
    """The monitor whose `state` a checkpoint kept.

    Raises:
        ValueError: it is not a monitor's state.
    """
    kinds = {"metric": str, "higher": bool, "min_delta": float, "step": int, "best_step": int, "waited": int}
    optional = ("best", "reference")
    if (
        not isinstance(state, Mapping)
        or state.keys() != {*kinds, *optional}
        or not all(type(state[key]) is kind for key, kind in kinds.items())
        or not all(state[key] is None or type(state[key]) is float for key in optional)
    ):
        raise ValueError("what it says of the best validation is of the wrong kind")
    return Monitor(**state)


def of_config(config: Mapping[str, Any]) -> Monitor:
    """The monitor that a configuration asks for, before the first validation.

    Raises:
        RequestError: what it is to follow is not measured, or has no better and worse.
    """
    metric, delta = config["best"]["metric"], float(config["stop"]["min_delta"])
    if metric == BOUND:
        return Monitor(bound_name(config["schedule"]["T"]), min_delta=delta)
    measured = {quantity: name for name, each in registry.metrics().items() for quantity in each.quantities}
    if metric not in measured:
        known = [BOUND, *measured]
        raise RequestError(f"best.metric={metric} is not one of {', '.join(known)}{nearest(str(metric), known)}")
    if not config["every"]["metrics"]:
        raise RequestError(f"best.metric={metric} is measured only with every.metrics=STEPS: add it")
    if measured[metric] not in config["validation"]["metrics"]:
        raise RequestError(f"best.metric={metric} is not measured: add {measured[metric]} to validation.metrics")
    better = registry.of(metric).better
    if better is None:
        raise RequestError(f"best.metric={metric} has no better and worse: choose another")
    name = samples_name(metric, config["validation"]["num_samples"])
    return Monitor(name, higher=better == "higher", min_delta=delta)


def bound_name(T: int) -> str:
    """What the bound of held-out images is logged as."""
    return f"{PREFIX}bits_per_dim_{min(TIMESTEPS, T)}_timesteps"


def seen_name(T: int) -> str:
    """What the bound of training images is logged as."""
    return f"{PREFIX}train_bits_per_dim_{min(TIMESTEPS, T)}_timesteps"


def samples_name(quantity: str, n: int) -> str:
    """What a quantity of n samples is logged as."""
    return f"{PREFIX}{quantity}_{n}_samples"
