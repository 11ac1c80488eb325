"""Arithmetic in float64 on devices that may not have it: Apple's GPUs (MPS) have none."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}  # kinds of devices


def with_float64(device: torch.device | str) -> torch.device:
    """The device itself if it has float64, or else the CPU."""
    device = torch.device(device)
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def wide(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device, in float64 or, where it has none, in float32."""
    if device.type in WITHOUT_FLOAT64:
        return values.to(torch.float32).to(device)
    return values.to(device).to(torch.float64)
