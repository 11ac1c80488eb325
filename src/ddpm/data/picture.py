"""From an encoded picture of any format, mode and size to uint8 of one shape."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpm.data.dataset import DataError

Image.init()  # PIL finds its plugins at the first unusual file, in a way that two threads can trip over

# What is taken for a picture in a folder or an archive; whatever else lies there (notes, lists, thumbnails) is not.
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".tga", ".avif", ".jp2"}
)


def is_picture(path: PurePath) -> bool:
    """By its name, which is neither hidden nor in one of the folders that macOS adds to an archive."""
    return path.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


@contextlib.contextmanager
def opened(encoded: bytes) -> Iterator[Image.Image]:
    """The picture, for as long as the context lasts, in which whatever is wrong with it is a DataError with the reason.

    Raises:
        DataError: this is not a whole picture, for the caller to add the file.
    """
    if not encoded:
        raise DataError("it is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError("it is not a picture") from None
    except DataError:
        raise
    except Exception as error:  # on a broken file decoders raise anything, from SyntaxError to struct.error
        raise DataError(str(error).partition("\n")[0] or type(error).__name__) from error


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture itself, or if its pixels are larger numbers, what they are in 8 bits.

    Raises:
        DataError: the range of its numbers is unknown.
    """
    if image.mode == "F":
        raise DataError("its pixels are floating point numbers of an unknown range; convert it to 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image)
    # Pillow scales the levels of a PGM to 16 bits by the highest that the file declares.
    known = image.mode != "I" or image.format == "PPM"
    if not known and not 255 < (highest := int(levels.max())) < 2**16:
        raise DataError(
            f"its pixels are 32-bit numbers up to {highest:,}, of an unknown range; convert it to 8 or 16 bits"
        )
    scaled = Image.fromarray((levels.astype(np.float64) * (255 / 65535)).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:  # one of the levels, which Pillow does not look for
        opaque = np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)
        return Image.merge("LA", [scaled, Image.fromarray(opaque)])
    return scaled


@dataclass(frozen=True)
class PictureTransform:
    """How a picture becomes uint8 [channels, height, width].

    It is turned upright as its EXIF orientation says; of an animation the first frame counts. What is transparent is
    laid over the gray or (red, green, blue) `background`. 16-bit gray is scaled by 255 / 65535, not cut off; gray is
    (299 red + 587 green + 114 blue) / 1000. Of the upright picture, the largest centred box with the target's aspect
    ratio, to the nearest pixel, is resized by an antialiased Lanczos filter; a box of the right size is left alone.
    Colour profiles are ignored.
    """

    channels: int
    height: int
    width: int
    background: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def size_bytes(self) -> int:
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        over = "#" + bytes(self.background).hex()
        return f"{self.channels}x{self.height}x{self.width}, centre crop, lanczos, over {over}"

    def __call__(self, encoded: bytes) -> UInt8[np.ndarray, "c h w"]:
        """Raises DataError with the reason, for the caller to add the file, if this is not a whole picture."""
        with opened(encoded) as image:
            return self.pixels(image)

    def exactly(self, encoded: bytes) -> UInt8[np.ndarray, "c h w"]:
        """Prepares a picture, and raises DataError if it is no whole picture or, upright, has not the target's size."""
        with opened(encoded) as image:
            pixels = self.pixels(image)
            if image.size != (self.width, self.height):
                raise DataError(
                    f"it is {image.width}x{image.height}, and the model's images are {self.width}x{self.height}: "
                    "crop and resize it first"
                )
        return pixels

    def pixels(self, image: Image.Image) -> UInt8[np.ndarray, "c h w"]:
        """Prepares a picture that Pillow has opened, and turns it upright in place."""
        pixels = np.asarray(self._fit(self._flatten(image)))
        return np.ascontiguousarray(pixels.reshape(self.height, self.width, self.channels).transpose(2, 0, 1))

    def _flatten(self, image: Image.Image) -> Image.Image:
        """One opaque 8-bit picture, gray or colour as asked for, upright."""
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        image = eight_bits(image)
        if image.has_transparency_data:
            over = Image.new("RGBA", image.size, (*self.background, 255))
            image = Image.alpha_composite(over, image.convert("RGBA"))
        if image.mode not in ("L", "RGB"):
            image = image.convert("RGB")
        return image.convert("L" if self.channels == 1 else "RGB")

    def _fit(self, image: Image.Image) -> Image.Image:
        scale = min(image.width / self.width, image.height / self.height)
        width = min(image.width, max(1, round(self.width * scale)))
        height = min(image.height, max(1, round(self.height * scale)))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        box = image.crop((left, top, left + width, top + height))
        return box.resize((self.width, self.height), Image.Resampling.LANCZOS)
