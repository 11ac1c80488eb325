"""A small network for points in the plane (or any vectors)."""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ddpm.networks.network import Network
from ddpm.networks.unet import time_embedding


@final
class MLP(Network):
    """network(x, t) with t counted from 0, for vectors [b, in_channels]: residual blocks that all see the time.

    The input is x with sin and cos of 2^k pi x for k < `frequencies`, without which a network of this size learns no
    fine detail; Tancik et al. 2020.

    Raises:
        ValueError: `channels` is odd or below 4.
    """

    event_ndim = 1
    outer = ("dense_in", "dense_out")

    def __init__(
        self, in_channels: int, out_channels: int, channels: int = 128, num_res_blocks: int = 3, frequencies: int = 3
    ) -> None:
        super().__init__()
        if channels < 4 or channels % 2 != 0:
            raise ValueError(f"channels={channels} must be even and at least 4: use {max(4, channels + channels % 2)}")
        self.channels, self.frequencies = channels, frequencies
        self.temb = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())
        self.dense_in = nn.Linear(in_channels * (1 + 2 * frequencies), channels)
        self.block = nn.ModuleList(ResBlock(channels) for _ in range(num_res_blocks))
        self.dense_out = nn.Linear(channels, out_channels)

    def forward(self, x: Float[Tensor, "b c"], t: Int[Tensor, " b"]) -> Float[Tensor, "b out"]:
        temb = self.temb(time_embedding(t, self.channels))
        angles = [2**k * math.pi * x for k in range(self.frequencies)]
        h = self.dense_in(torch.cat([x, *(wave(angle) for angle in angles for wave in (torch.sin, torch.cos))], 1))
        for block in self.block:
            h = block(h, temb)
        out: Tensor = self.dense_out(F.silu(h))
        return out


class ResBlock(nn.Module):
    """x plus two linear layers of x, with the time added in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(channels, channels)
        self.temb_proj = nn.Linear(channels, channels)
        self.dense2 = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c"], temb: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        h = self.dense1(F.silu(x)) + self.temb_proj(temb)
        out: Tensor = x + self.dense2(F.silu(h))
        return out
