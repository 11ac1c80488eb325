"""Pictures."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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


def rate_distortion(rate: Sequence[float], rmse: Sequence[float]) -> Image.Image:
    """RMSE (0..255) of the x_0 estimate against the bits/dim spent so far; Ho et al. 2020, Figure 5."""
    figure = Figure((4.8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(rate, rmse, color="black")
    axes.set(xlabel="rate (bits/dim)", ylabel="distortion (RMSE, 0..255)", ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.3)
    return _drawn(figure)


def plane(
    times: Sequence[int],
    forward: Sequence[Tensor],
    reverse: Sequence[Tensor],
    where: Tensor,
    drift: Sequence[Tensor],
) -> Image.Image:
    """Points [n, 2] of the forward and of the reverse process, and the drift at `where`: a column for each t."""
    figure = Figure((2.2 * len(times), 7.0), layout="constrained")
    panels = figure.subplots(3, len(times), sharex=True, sharey=True, squeeze=False)
    reach = float(where.abs().max())
    for column, t in enumerate(times):
        top, middle, bottom = panels[:, column]
        _scatter(top, forward[column])
        _scatter(middle, reverse[column])
        at, push = where.cpu(), drift[column].cpu()
        push = push / push.norm(dim=1, keepdim=True).clamp(min=1e-12).sqrt()  # lengths by their root: most are small
        bottom.quiver(*at.T, *push.T, angles="xy", color="C0", width=0.006)
        top.set_title("data" if t == 0 else f"t = {t}")
    for row, name in zip(panels, ("forward: q(x_t)", "reverse: p(x_t)", "drift: μ(x_t, t) − x_t"), strict=True):
        row[0].set_ylabel(name)
    panels[0, 0].set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    for panel in panels.flat:
        panel.set_aspect("equal")
    return _drawn(figure)


def _scatter(axes: Axes, points: Tensor) -> None:
    x, y = points.cpu().T
    axes.scatter(x, y, s=1, color="black", alpha=0.4, linewidths=0)


def _drawn(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return Image.open(buffer)
