"""Guidance: a network that is made of two, led by one away from another, and stands where the network stands.

Its output is good + w (good - poor). At fixed x_t epsilon, v, mu, x_0 and the score are affine in each other, and 1 + w
and -w add up to 1: so all of them are combined in the same way, whichever is predicted.

The weight w is that of Ho & Salimans 2022, Eq. (6): 0 is the unguided model, to the bit and at its cost; -1 is the poor
one. Others call 1 + w the scale.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from ddpm.diffusion.condition import Condition
from ddpm.diffusion.process import Batch, Time
from ddpm.diffusion.reverse import ReverseProcess

Network = Callable[..., Tensor]  # of x_t, t, and the condition where there is one


class Guidance(ABC):
    """A way to lead a reverse process.

    Attributes:
        needs_dropped: the network must have been trained without its condition, too.
        evaluations: of networks, for one of the guided process.
    """

    needs_dropped: ClassVar[bool]
    evaluations: int

    @abstractmethod
    def __call__(self, p: ReverseProcess) -> ReverseProcess:
        """The guided process; it shares the networks."""


@final
class Unguided(Guidance):
    """The process as it is."""

    needs_dropped = False
    evaluations = 1

    def __call__(self, p: ReverseProcess) -> ReverseProcess:
        return p


class Led(Guidance):
    """Guidance with the weight `scale` at those t that lie in `interval`, both ends included; None: at every t.

    An interval in the middle keeps what guidance improves and spares what it harms; Kynkäänniemi et al. 2024.
    """

    def __init__(self, scale: float = 1.0, interval: Sequence[int] | None = None) -> None:
        if not math.isfinite(scale):
            raise ValueError(f"guidance.scale={scale} must be a finite number; 0 is no guidance")
        if interval is not None and not (len(interval) == 2 and 1 <= interval[0] <= interval[1]):
            raise ValueError(f"guidance.interval={list(interval)} must be [LOW, HIGH], two t of 1..T; or null, for all")
        self.scale, self.interval = scale, interval
        self.evaluations = 2 if scale else 1

    @abstractmethod
    def poor(self, network: nn.Module) -> Network:
        """What the network is led away from."""

    def __call__(self, p: ReverseProcess) -> ReverseProcess:
        return p.over(Guided(p.network, self.poor(p.network), self.scale, self.interval)) if self.scale else p


@final
class ClassifierFree(Led):
    """The network is led away from itself without its condition; Ho & Salimans 2022, Eq. (6)."""

    needs_dropped = True

    def poor(self, network: nn.Module) -> Network:
        return lambda x_t, t, condition: network(x_t, t, condition.dropped())


@final
class AutoGuidance(Led):
    """The network is led away from a weaker one, trained for less long, say, on the same data; Karras et al. 2024.

    `weak` is that network, or a process over it.
    """

    needs_dropped = False

    def __init__(self, weak: nn.Module, scale: float = 1.0, interval: Sequence[int] | None = None) -> None:
        super().__init__(scale, interval)
        self.weak = weak.network if isinstance(weak, ReverseProcess) else weak

    def poor(self, network: nn.Module) -> Network:
        return self.weak


class Guided(nn.Module):
    """good + w (good - poor), where w is `scale` within the interval of t and 0 elsewhere; it counts t from 0.

    Of a learned variance, the second half of the channels, it is the good network's.
    """

    def __init__(self, good: nn.Module, poor: Network, scale: float, interval: Sequence[int] | None = None) -> None:
        super().__init__()
        self.good, self.poor, self.scale, self.interval = good, poor, scale, interval

    def forward(self, x_t: Batch, t: Time, condition: Condition | None = None) -> Tensor:
        told = () if condition is None else (condition,)
        good: Tensor = self.good(x_t, t, *told)
        weight = torch.full(t.shape, self.scale, device=t.device, dtype=x_t.dtype)
        if self.interval is not None:
            low, high = self.interval
            weight = weight * ((low <= t + 1) & (t + 1 <= high))
            if not weight.any():
                return good
        channels = x_t.shape[1]
        poor: Tensor = self.poor(x_t, t, *told)[:, :channels]
        good = good.to(x_t.dtype)  # under autocast the outputs are narrower
        output, raw = good[:, :channels], good[:, channels:]
        led = output + weight.reshape(-1, *[1] * (x_t.ndim - 1)) * (output - poor)
        return torch.cat([led, raw], 1)
