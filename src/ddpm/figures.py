"""Pictures."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

READABLE = 48  # pixels: smaller images are enlarged by a whole factor


def grid(images: Tensor, columns: int) -> Image.Image:
    """uint8 images [n, C, H, W] set out in rows, enlarged (nearest) to a readable size, with a gap between them."""
    factor = max(1, -(-READABLE // min(images.shape[-2:])))
    enlarged = interpolate(images.float(), scale_factor=factor, mode="nearest").byte()
    gap = max(2, min(enlarged.shape[-2:]) // 16)
    rows = make_grid(enlarged.expand(-1, 3, -1, -1) if images.shape[1] == 1 else enlarged, columns, gap, pad_value=96)
    return Image.fromarray(rows.permute(1, 2, 0).contiguous().numpy())


def save(picture: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def strip(states: list[Tensor]) -> Image.Image:
    """The chains of a few images, a row each: uint8 states, each [n, C, H, W], from left to right."""
    return grid(torch.stack(states, 1).flatten(0, 1), columns=len(states))
