"""What validations say of when to stop: which is the best, and for how long there was no better one.

It is a function of the logged values alone, so that a run that goes on and a report on it come to the same. Without
torch.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ddpm.config.errors import RequestError
from ddpm.config.grammar import nearest
from ddpm.messages import warn
from ddpm.metrics import registry

BOUND = "bound"  # `best.metric` of the held-out bound; any other is a quantity of a metric of samples
TIMESTEPS = 16  # of the T, at which validations estimate the bound of an example
PREFIX = "validation/"
TOLERABLE_WAIT = 0.2  # for data, of the time of a step; here, because `ddpm diagnose` judges by it, too
INITIAL = 0.02  # a share of the initial weights in their average that can be forgotten
SAMPLING = ("sampler", "guidance", "features")  # the sections by which samples are drawn and measured


@dataclass
class Monitor:
    """Follows a metric over the validations of a run.

    Attributes:
        metric: its name, as logged.
        higher: whether a higher value is better.
        min_delta: an improvement is larger than this, where patience is concerned.
        settled: patience counts the values after this step, when the average has forgotten the initial weights; before
            that the bound may rise for a while.
        step: of the newest value; -1 before the first.
        best: the best value, and `best_step` its step.
        reference: the value on which the next must improve by `min_delta`.
        waited: values since then.
        measured: the settings by which validations measure it, which another start may change; "" is unknown.
    """

    metric: str
    higher: bool = False
    min_delta: float = 0.0
    settled: int = 0
    step: int = -1
    best: float | None = None
    best_step: int = -1
    reference: float | None = None
    waited: int = 0
    measured: str = ""

    def see(self, step: int, value: float) -> bool:
        """Take in the value of a step, unless it was taken in before. Whether it is the best so far."""
        if step <= self.step:
            return False
        self.step, value = step, float(value)  # of a metric of somebody's own it may be another number
        if self._improves(value, self.reference, self.min_delta):
            self.reference, self.waited = value, 0
        elif step > self.settled:
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

    def resume(self, state: Any, source: Any = "the checkpoint") -> None:
        """Go on from what a checkpoint kept, if that is of the same metric, measured in the same way.

        An earlier version kept nothing, or not how it was measured.

        Args:
            source: the checkpoint, for messages.

        Raises:
            ValueError: it is not a monitor's state.
        """
        if state is None:
            return
        kept = monitor_from_state(state, source)
        if (kept.metric, kept.higher) != (self.metric, self.higher):
            return
        if kept.measured and kept.measured != self.measured:
            warn(f"{self.metric} is measured otherwise than before: the best validation is looked for anew from here")
            return
        own = {"min_delta": self.min_delta, "settled": self.settled, "measured": self.measured}
        self.__dict__ |= kept.state | own


def monitor_from_state(state: Any, source: Any) -> Monitor:
    """The monitor whose `state` a checkpoint kept.

    Raises:
        ValueError: it is not a monitor's state.
    """
    kinds = {field.name: type(field.default) for field in fields(Monitor) if field.default not in (MISSING, None)}
    kinds["metric"] = str
    optional = ("best", "reference")
    if isinstance(state, Mapping):
        state = {"measured": "", **state}
    if (
        not isinstance(state, Mapping)
        or state.keys() != {*kinds, *optional}
        or not all(type(state[key]) is kind for key, kind in kinds.items())
        or not all(state[key] is None or type(state[key]) is float for key in optional)
    ):
        raise ValueError(f"{source} is refused: what it says of the best validation is of the wrong kind")
    return Monitor(**state)


def monitor_of(config: Mapping[str, Any]) -> Monitor:
    """The monitor that a configuration asks for, before the first validation.

    Raises:
        RequestError: what it is to follow is not measured, or has no better and worse.
    """
    metric, delta = config["best"]["metric"], float(config["stop"]["min_delta"])
    settled = steps_to_settle(config["ema"]["decay"])
    if metric == BOUND:
        name = held_out_bound_name(config["schedule"]["T"])
        return Monitor(name, min_delta=delta, settled=settled, measured=_how(config))
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
    return Monitor(name, higher=better == "higher", min_delta=delta, settled=settled, measured=_how(config, *SAMPLING))


def _how(config: Mapping[str, Any], *sections: str) -> str:
    """The settings by which a validation measures, in a line: its images and their noise, and these sections."""
    evaluation = config.get("evaluation", {})
    bound = evaluation.get("bits_per_dim", {})
    settings = {"chunk": evaluation.get("chunk"), "images": bound.get("images"), "decoder": bound.get("decoder")}
    if sections:
        settings = {key: evaluation.get(key) for key in ("chunk", "seed", "fid_split")}
    return json.dumps([settings, *(config.get(section) for section in sections)], sort_keys=True, default=str)


def steps_to_settle(decay: float) -> int:
    """Steps after which the initial weights are less than `INITIAL` of the average: decay^steps < `INITIAL`."""
    return math.ceil(math.log(INITIAL) / math.log(decay)) if decay else 0


def fitting_decay(steps: float) -> float:
    """The decay of an average of the weights whose half-life is 3 % of the steps of a run, and at most 0.9999."""
    return min(0.9999, math.pow(0.5, 1 / max(1.0, 0.03 * steps)))


def held_out_bound_name(T: int) -> str:
    """What the bound of held-out images is logged as."""
    return f"{PREFIX}bits_per_dim_{min(TIMESTEPS, T)}_timesteps"


def training_bound_name(T: int) -> str:
    """What the bound of training images is logged as."""
    return f"{PREFIX}train_bits_per_dim_{min(TIMESTEPS, T)}_timesteps"


def samples_name(quantity: str, n: int) -> str:
    """What a quantity of n samples is logged as."""
    return f"{PREFIX}{quantity}_{n}_samples"
