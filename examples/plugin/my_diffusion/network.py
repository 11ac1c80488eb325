"""A network: a few convolutions, each of which sees the time."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.network import Network
from ddpm.networks.unet import time_embedding


class Convolutions(Network):
    """`depth` residual convolutions of `channels` channels."""

    event_ndim = 3

    def __init__(self, in_channels: int, out_channels: int, channels: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.times = nn.ModuleList(nn.Linear(channels, channels) for _ in range(depth))
        self.last = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = time_embedding(t, self.channels)
        h = self.first(x)
        for block, time in zip(self.blocks, self.times, strict=True):
            h = h + block(F.silu(h + time(embedding)[:, :, None, None]))
        return cast(Tensor, self.last(F.silu(h)))
