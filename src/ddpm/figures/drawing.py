"""Pictures of tensors, and their files."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from ddpm.files import whole_file
from ddpm.metrics.registry import of

READABLE = 48  # pixels: smaller images are enlarged by a whole factor
GAP = 96  # gray level between images
WIDTH = 800  # pixels that a labelled grid fills at least, each image enlarged by a whole factor
COLUMN, PAGE = 3.4, 6.9  # inches: the widths of plots in a paper
VECTOR = (".svg", ".pdf")
SMALL = 7  # points
FRAME, LAST_FRAME = 80, 2000  # milliseconds of a film
COLOURS = 64  # of each frame: noise does not compress

_MATH = re.compile(r"\\[a-z]+|[${}_^]")  # what takes no room in a label


@dataclass(frozen=True)
class Film:
    """Frames of one size."""

    frames: Sequence[Image.Image]
    milliseconds: int = FRAME  # of a frame but the last


# What becomes files: pictures, plots (in vector formats, too), films, and arrays as the ADM evaluator reads them.
Product: TypeAlias = Image.Image | Figure | Film | Shaped[Tensor, "n *event"]


def write(folder: Path, name: str, *products: Product) -> list[Path]:
    """The files NAME.png, .svg, .pdf, .gif, .npz that the products make, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def new(suffix: str) -> AbstractContextManager[BinaryIO]:
        written.append(folder / f"{name}{suffix}")
        return whole_file(written[-1], shared=True)

    for product in products:
        if isinstance(product, Image.Image):
            written.append(save(product, folder / f"{name}.png"))
        elif isinstance(product, Film):
            first, *others = (frame.quantize(COLOURS, dither=Image.Dither.NONE) for frame in product.frames)
            times = [*[product.milliseconds] * len(others), LAST_FRAME]
            with new(".gif") as file:
                first.save(file, "GIF", save_all=True, append_images=others, duration=times, loop=0)
        elif isinstance(product, Tensor):
            images = product.permute(0, 2, 3, 1) if product.ndim == 4 else product
            with new(".npz") as file:
                np.savez(file, arr_0=images.numpy())
        else:
            written.append(save(drawn(product, 240), folder / f"{name}.png"))
            product.set_layout_engine("none")  # what was laid out stays, and is not computed for each format again
            with matplotlib.rc_context({"svg.hashsalt": name}):  # the same file for the same plot
                for suffix in VECTOR:
                    undated = {"Date": None} if suffix == ".svg" else {"CreationDate": None}
                    with new(suffix) as file:
                        product.savefig(file, format=suffix[1:], metadata=undated, dpi=300)
    return written


def grid(images: Tensor, columns: int) -> Image.Image:
    """uint8 images [n, C, H, W] set out in rows, enlarged (nearest) to a readable size, with a gap between them."""
    return _tiled(images, columns, max(1, -(-READABLE // min(images.shape[-2:]))))


def _tiled(images: Tensor, columns: int, factor: int) -> Image.Image:
    """The images in rows; of other than 1 or 3 channels, which no screen has, their mean is shown."""
    seen = images.float() if images.shape[1] in (1, 3) else images.float().mean(1, keepdim=True)
    enlarged = interpolate(seen, scale_factor=factor, mode="nearest").byte().expand(-1, 3, -1, -1)
    gap = max(2, min(enlarged.shape[-2:]) // 16)
    rows = make_grid(enlarged, columns, gap, pad_value=GAP)
    return Image.fromarray(rows.permute(1, 2, 0).contiguous().numpy())


def save(picture: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, shared=True) as file:
        picture.save(file, "PNG")
    return path


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture with a line of text below."""
    font = ImageFont.load_default(size=max(12, picture.width // 30))
    _, top, _, bottom = font.getbbox(title)
    made = Image.new("RGB", (picture.width, picture.height + round(1.6 * (bottom - top)) + 4), "white")
    made.paste(picture)
    ImageDraw.Draw(made).text((4, picture.height + 2 - top + 0.3 * (bottom - top)), title, "black", font)
    return made


def strip(states: list[Tensor]) -> Image.Image:
    """The chains of a few images, a row each: uint8 states, each [n, C, H, W], from left to right."""
    return grid(torch.stack(states, 1).flatten(0, 1), columns=len(states))


def labelled(
    images: UInt8[Tensor, "n c h w"],
    columns: int,
    *,
    caption: str,
    above: Sequence[str] = (),
    beside: Sequence[str] = (),
    corner: str = "",
    width: int = WIDTH,
) -> Image.Image:
    """Images in rows, pixel by pixel, with a label above each column and beside each row, and a caption below.

    Letters are a fixed share of the width, so that they are as large in a column of a paper for images of any size.

    Args:
        corner: what the labels above are values of.
        width: pixels that the images fill at least.
    """
    tiles = np.asarray(_tiled(images, columns, -(-width // (columns * images.shape[-1]))))
    high, wide, _ = tiles.shape
    letter = max(wide / 40, 16)
    widest = max(len(_MATH.sub("", label)) for label in (corner, *beside, ""))
    left = 8.0 + round(letter * (0.6 * widest + 0.3)) * bool(widest)  # w is wider than most
    total = left + wide + 4
    lines = _wrapped(caption, round(total / letter / 0.55))
    top, bottom = round(1.7 * letter) if above else 4, round((1.25 * len(lines) + 0.9) * letter)
    height = top + high + bottom
    figure = Figure((total / 100, height / 100), dpi=100)
    figure.figimage(tiles, int(left), bottom)

    def text(x: float, y: float, words: str, across: str, along: str) -> None:
        figure.text(x / total, y / height, words, fontsize=0.72 * letter, ha=across, va=along)

    header = bottom + high + 0.4 * letter
    for column, label in enumerate(above):
        text(left + (column + 0.5) * wide / columns, header, label, "center", "baseline")
    text(left - 6, header, corner, "right", "baseline")
    rows = -(-len(images) // columns)
    for row, label in enumerate(beside):
        text(left - 6, bottom + high * (1 - (row + 0.5) / rows), label, "right", "center")
    text(8.0, bottom - 0.4 * letter, "\n".join(lines), "left", "top")
    return drawn(figure, 100).convert("RGB")


def scatters(clouds: Sequence[Float[Tensor, "n 2"]], titles: Sequence[str], caption: str) -> Figure:
    """Points in the plane, a panel for each cloud."""
    reach = 1.2
    wide = PAGE if len(clouds) > 2 else COLUMN
    figure, panels = _plot(wide, wide / len(clouds) + 0.5, len(clouds), caption, sharey=True)
    for axes, points, title in zip(panels, clouds, titles, strict=True):
        _scatter(axes, points, size=1.5, rasterized=True)
        axes.set_title(title, fontsize=SMALL + 1)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    return figure


def rates(
    rate: Float[Tensor, " T"],
    rmse: Float[Tensor, " T"],
    caption: str,
    others: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> Figure:
    """Distortion and rate over the reverse process, and one against the other, for t = 1..T; Figure 5.

    Args:
        others: rates and distortions by the name of a codec, shown beside the model's.
    """
    T = len(rate)
    done = range(T - 1, -1, -1)  # steps T - t
    figure, (left, middle, right) = _plot(PAGE, 2.5, 3, caption)
    distortion = "distortion (RMSE, 0..255)"
    left.plot(done, rmse, color="black")
    left.set(xlabel="reverse process steps (T − t)", ylabel=distortion, ylim=(0, None))
    middle.plot(done, rate, color="black")
    middle.set(xlabel="reverse process steps (T − t)", ylabel="rate (bits/dim)", ylim=(0, None))
    right.plot(rate, rmse, color="black", label="model")
    for name, (sent, missed) in (others or {}).items():
        right.plot(sent, missed, marker=".", markersize=3, linewidth=0.8, label=name)
    right.set(xlabel="rate (bits/dim)", ylabel=distortion, xlim=(0, None), ylim=(0, None))
    if others:
        right.legend(fontsize=SMALL - 1)
    return figure


def losses(terms: Float[Tensor, "b T"], unit: str, simple: Float[Tensor, "b T"], target: str, caption: str) -> Figure:
    """The terms of the bound and the simple loss against t = 1..T: mean over examples, and two standard errors.

    L_0 of a density may be negative, and is then left out.
    """
    figure, panels = _plot(PAGE, 2.7, 2, caption)
    labels = (f"$L_{{t-1}}$ ({unit})", f"simple loss (MSE of {target})")
    for axes, values, label in zip(panels, (terms, simple), labels, strict=True):
        n, T = values.shape
        mean, error = values.mean(0), 2 * values.std(0, correction=min(1, n - 1)) / n**0.5
        t = range(1, T + 1)
        axes.fill_between(t, mean - error, mean + error, color="C0", alpha=0.3, linewidth=0)
        axes.plot(t, mean, color="C0", linewidth=0.8)
        axes.set(xlabel="t", ylabel=label, xscale="log")
        axes.set_yscale("log", nonpositive="mask")
        positive = mean[mean > 0]
        axes.set_ylim(float(positive.min()) / 2, float(positive.max()) * 2)
    return figure


def curves(x: Sequence[float], values: Mapping[str, Sequence[float]], what: str, caption: str) -> Figure:
    """Several quantities against the same x, a panel for each."""
    figure, panels = _plot(PAGE, 2.5, len(values), caption)
    for axes, (name, y) in zip(panels, values.items(), strict=True):
        axes.plot(x, y, color="black", marker=".")
        axes.set(xlabel=what, ylabel=of(name).title)
    return figure


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
    return drawn(figure)


def _plot(width: float, height: float, panels: int, caption: str, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Panels side by side above a caption, in letters that can be read in print."""
    lines = _wrapped(caption, round(width * 23))
    with matplotlib.rc_context({"font.size": SMALL, "axes.titlesize": SMALL}):
        figure = Figure((width, height + 0.1 * len(lines)), layout="constrained")
        axes = list(figure.subplots(1, panels, sharey=sharey, squeeze=False)[0])
        figure.supxlabel("\n".join(lines), fontsize=SMALL - 1, color="0.3")
    for each in axes:
        each.tick_params(labelsize=SMALL)
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
    return figure, axes


def _wrapped(caption: str, width: int) -> list[str]:
    return textwrap.wrap(caption, width, break_long_words=False)


def _scatter(axes: Axes, points: Tensor, *, size: float = 1, rasterized: bool = False) -> None:
    x, y = points.cpu().T
    axes.scatter(x, y, s=size, color="black", alpha=0.4, linewidths=0, rasterized=rasterized)


def drawn(figure: Figure, dpi: int = 150) -> Image.Image:
    """A plot as pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer)
