"""The learned reverse process p_theta: a network whose output a prediction and a variance turn into a Gaussian."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ddpm.diffusion.condition import Condition
from ddpm.diffusion.decoder import Decoder, DiscretizedDecoder
from ddpm.diffusion.gaussian import Gaussian
from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import Batch, ForwardProcess, Time
from ddpm.diffusion.variance import Variance


class Estimate(NamedTuple):
    """What one evaluation of the network at (x_t, t) says; every part has the shape of x_t."""

    output: Batch  # in the space of the prediction, without a learned variance's channels
    x_0: Batch  # the estimate of x_0, clipped if that was asked for
    step: Gaussian  # p_theta(x_s | x_t)


class ReverseProcess(nn.Module):
    """p_theta(x_s | x_t) = N(mu_theta(x_t, t), Sigma_theta(x_t, t)) for any s < t; Eq. (1) for s = t - 1.

    `network(x_t, t)` counts time from 0, as pretrained weights do; nothing else does. With a learned variance it
    returns twice the channels of x_t, the output first. Without a `decoder`, data are gray levels. A network that is
    told something of each example takes it as a third argument, which `given` fills in.
    """

    # Of what `ddpm.load` returns: the shape of one example, and whether it was never trained without its condition.
    event_shape: tuple[int, ...] | None = None
    always_conditioned = False

    def __init__(
        self,
        network: nn.Module,
        q: ForwardProcess,
        prediction: Prediction,
        variance: Variance,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__()
        self.network, self.q, self.prediction, self.variance = network, q, prediction, variance
        self.decoder = decoder or DiscretizedDecoder()

    def given(self, condition: Condition | None) -> "ReverseProcess":
        """p_theta(x_s | x_t, condition) for a batch of examples of which this is known; they share the network.

        Nothing that works on a process needs to know of its condition. With None it is the process itself.
        """
        return self if condition is None else self.over(Conditioned(self.network, condition))

    def over(self, network: nn.Module) -> "ReverseProcess":
        """This gives the same process over another network."""
        return ReverseProcess(network, self.q, self.prediction, self.variance, self.decoder).described_as(self)

    def described_as(self, other: "ReverseProcess") -> "ReverseProcess":
        """The process itself, with what is known of another: the shape of an example, and how it was trained."""
        self.event_shape, self.always_conditioned = other.event_shape, other.always_conditioned
        return self

    def forward(self, x_t: Batch, t: Time, s: Time | None = None, *, clip: bool = False) -> Estimate:
        """Evaluate the network at (x_t, t) for a step to s, by default t - 1.

        `clip` cuts the x_0 estimate to [-1, 1]: for sampling and evaluation, not for training.
        """
        s = t - 1 if s is None else s
        scaled = self.prediction.network_input(self.q, x_t, t)
        out: Tensor = self.network(scaled, t - 1).to(x_t.dtype)  # under autocast the output is narrower
        b, channels, *sides = x_t.shape
        if out.shape != (due := (b, channels * (2 if self.variance.learned else 1), *sides)):
            raise ValueError(f"the network returned {list(out.shape)} for x_t {list(x_t.shape)}: {list(due)} are due")
        output, raw = torch.split(out, x_t.shape[1], dim=1) if self.variance.learned else (out, None)
        x_0 = self.prediction.x_0(self.q, output, x_t, t)
        if x_0.shape != x_t.shape:  # it would be broadcast
            raise ValueError(f"{type(self.prediction).__name__}.x_0 is {list(x_0.shape)} for x_t {list(x_t.shape)}")
        if clip:
            x_0 = x_0.clamp(-1, 1)
        mean = self.prediction.mean(self.q, output, x_0, x_t, t, s)
        return Estimate(output, x_0, Gaussian(mean, self.variance.log_var(self.q, raw, x_t, t, s)))


class Conditioned(nn.Module):
    """A network with its third argument, the condition, filled in, wherever the condition lies."""

    def __init__(self, network: nn.Module, condition: Condition) -> None:
        super().__init__()
        self.network, self.condition = network, condition

    def forward(self, x_t: Batch, t: Time) -> Tensor:
        self.condition = self.condition.to(x_t.device)  # moves once
        return cast(Tensor, self.network(x_t, t, self.condition))
