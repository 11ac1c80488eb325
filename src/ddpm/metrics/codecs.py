"""Picture codecs code the images of the bound: without loss in bits per dimension, with loss by rate and distortion.

Images are coded in two ways: each as a file of its own, as the model codes them, and tiled into one picture, where a
codec adapts itself to all of them and looks across their edges. What a file holds whatever it shows, the bytes of one
black pixel's, is counted apart.
"""

import functools
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, features
from PIL import __version__ as pillow
from torch import Tensor

Pixels = UInt8[np.ndarray, "..."]  # [height, width], or [height, width, 3]

MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}  # Pillow's, by channels
LONGEST = 16_000  # pixels of a side; WebP takes 16,383
QUALITIES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 100)


@dataclass(frozen=True)
class Codec:
    """A codec of Pillow's.

    Attributes:
        format: Pillow's name of it.
        library: Pillow's name of what it is made with, where that has a version.
        settings: of the encoder.
    """

    title: str
    format: str
    library: str
    settings: tuple[tuple[str, Any], ...]

    @property
    def installed(self) -> bool:
        Image.init()
        return self.format in Image.SAVE and self.format in Image.OPEN

    @property
    def version(self) -> str | None:
        return features.version(self.library) if self.library in features.get_supported() else None

    def encode(self, pixels: Pixels, **more: int) -> bytes:
        """The file of a picture; `more` are settings besides the codec's own, as its quality."""
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, self.format, **dict(self.settings), **more)
        return file.getvalue()

    def decode(self, content: bytes, mode: Literal["L", "RGB"]) -> Pixels:
        """The picture in a file."""
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert(mode))


# Without loss, with all the time that they can use.
LOSSLESS = {
    "png": Codec("PNG", "PNG", "zlib", (("optimize", True),)),
    "webp": Codec("WebP", "WEBP", "webp", (("lossless", True), ("quality", 100), ("method", 6))),
    "avif": Codec(
        "AVIF", "AVIF", "avif", (("quality", 100), ("subsampling", "4:4:4"), ("speed", 0), ("max_threads", 1))
    ),
    "jpeg_xl": Codec("JPEG XL", "JXL", "jxl", (("lossless", True),)),
}
# With loss, at each of QUALITIES.
LOSSY = {
    "jpeg": Codec("JPEG", "JPEG", "jpg", (("optimize", True), ("progressive", True), ("subsampling", "4:4:4"))),
    "webp": Codec("WebP", "WEBP", "webp", (("method", 6),)),
}
EACH, WITH_OVERHEAD, TOGETHER, OVERHEAD = "each", "each_with_overhead", "together", "overhead_bytes"
PARTS = (EACH, WITH_OVERHEAD, TOGETHER, OVERHEAD)


def take(shape: tuple[int, ...]) -> bool:
    """Whether codecs take examples of this shape: images of one channel or three."""
    return len(shape) == 3 and shape[0] in MODES


def without_loss(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """What each of `LOSSLESS` needs for every image: its `PARTS`, in bits per dimension but for the bytes of the last.

    Of images tiled together each has an equal share. Where a codec is not installed or does not give every level back,
    its numbers are NaN. So is AVIF of colours, of which Pillow stores brightness and differences.
    """
    single, tiled, dims = list(_pixels(images)), _tiled(images), images[0].numel()
    columns = []
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # encoders let other threads run
        for codec in LOSSLESS.values():
            if not codec.installed or _size(codec, single[0]) is None:
                columns.append(torch.full((len(images), len(PARTS)), torch.nan))
                continue
            overhead = _overhead(codec, single[0].shape[2:])
            sizes = [size or torch.nan for size in threads.map(functools.partial(_size, codec), [*tiled, *single])]
            each = torch.tensor(sizes[len(tiled) :])
            together = (sum(sizes[: len(tiled)]) - overhead * len(tiled)) / len(single)
            one = torch.ones(len(single))
            bits = torch.stack([each - overhead, each, together * one], 1) * 8 / dims
            columns.append(torch.cat([bits, overhead * one[:, None]], 1))
    return torch.cat(columns, 1)


def with_loss(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """The rate (bits per dimension, overhead apart) and squared error (levels) of each of `LOSSY` at each quality.

    The images are tiled together; each has an equal share.
    """
    tiled, mode = _tiled(images), MODES[images.shape[1]]

    def coded(asked: tuple[Codec, int]) -> tuple[float, float]:
        codec, quality = asked
        files = [codec.encode(pixels, quality=quality) for pixels in tiled]
        sent = sum(map(len, files)) - len(files) * _overhead(codec, tiled[0].shape[2:], quality=quality)
        missed = [
            float(np.square(codec.decode(file, mode) - pixels.astype(np.float64)).sum())
            for file, pixels in zip(files, tiled, strict=True)
        ]
        return 8 * sent / images.numel(), sum(missed) / images.numel()

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        found = list(threads.map(coded, [(codec, quality) for codec in LOSSY.values() for quality in QUALITIES]))
    return torch.tensor(found).flatten().expand(len(images), -1)


def rows(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """`without_loss` and `with_loss` of the images, side by side."""
    return torch.cat([without_loss(images), with_loss(images)], 1)


def summary(rows: Shaped[Tensor, "n k"]) -> dict[str, Any]:
    """The means of `rows` of all images, by codec: `lossless`, and the curves of the `lossy` ones."""
    first = len(LOSSLESS) * len(PARTS)
    return {"lossless": _needs(rows[:, :first]), "lossy": curves(rows[:, first:]), "pillow": pillow}


def _needs(rows: Shaped[Tensor, "n k"]) -> dict[str, dict[str, Any]]:
    """The means of `without_loss` over images, by codec; `value` is the better of the two ways.

    A codec that is not installed, or did not give back every level of every image, is left out.
    """
    found = {}
    for (name, codec), parts in zip(LOSSLESS.items(), torch.split(rows.mean(0), len(PARTS)), strict=True):
        if not parts.isnan().any():
            numbers = dict(zip(PARTS, parts.tolist(), strict=True))
            value = min(numbers[EACH], numbers[TOGETHER])
            found[name] = {"title": codec.title, "value": value, **numbers, **_about(codec)}
    return found


def curves(rows: Shaped[Tensor, "n k"]) -> dict[str, dict[str, Any]]:
    """Rate and root mean squared error (levels) over the qualities, by codec, from `with_loss` of all images."""
    found = {}
    for (name, codec), pairs in zip(LOSSY.items(), torch.split(rows.mean(0), 2 * len(QUALITIES)), strict=True):
        rate, squared = pairs.reshape(-1, 2).T
        points = {"quality": list(QUALITIES), "rate_bits_per_dim": rate.tolist(), "rmse": squared.sqrt().tolist()}
        found[name] = {"title": codec.title, **points, **_about(codec)}
    return found


def lines(found: dict[str, dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Rates and root mean squared errors of `curves`, by the codecs' titles."""
    return {each["title"]: (each["rate_bits_per_dim"], each["rmse"]) for each in found.values()}


def _about(codec: Codec) -> dict[str, Any]:
    return {"settings": dict(codec.settings), "version": codec.version}


@functools.cache
def _overhead(codec: Codec, channels: tuple[int, ...], **more: int) -> int:
    """The bytes of a file of one black pixel."""
    return len(codec.encode(np.zeros((1, 1, *channels), np.uint8), **more))


def _size(codec: Codec, pixels: Pixels) -> int | None:
    """The bytes of a picture's file; None if the file does not give back every level."""
    content = codec.encode(pixels)
    return len(content) if np.array_equal(codec.decode(content, "RGB" if pixels.ndim == 3 else "L"), pixels) else None


def _pixels(images: UInt8[Tensor, "n c h w"]) -> Iterator[Pixels]:
    """Each image as Pillow takes it."""
    for image in images.permute(0, 2, 3, 1).cpu().numpy():
        yield np.ascontiguousarray(image if image.shape[2] == 3 else image[:, :, 0])


def _tiled(images: UInt8[Tensor, "n c h w"]) -> list[Pixels]:
    """The images side by side, in as few pictures as hold them without a gap: about a square, and a row of the rest."""
    n, _, height, width = images.shape
    columns = min(max(1, LONGEST // width), round(n**0.5))
    rows = min(max(1, LONGEST // height), n // columns)
    whole = n - n % (columns * rows)
    blocks = [images[first : first + columns * rows] for first in range(0, whole, columns * rows)]
    blocks += [rest for rest in torch.split(images[whole:], columns) if len(rest)]
    return [next(_pixels(_block(block, min(columns, len(block))))) for block in blocks]


def _block(images: UInt8[Tensor, "n c h w"], columns: int) -> UInt8[Tensor, "1 c height width"]:
    n, channels, height, width = images.shape
    grid = images.reshape(n // columns, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(1, channels, n // columns * height, columns * width)
