"""Pictures of a run (grids of samples, strips of x_0 estimates), made small enough to be part of report.html."""

import base64
import io
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpm.report.reading import bounded
from ddpm.report.run import Run

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST = 560  # pixels of width
LARGEST = 60_000  # bytes
QUALITIES = (85, 50, 20)  # of WebP, tried in turn until a picture has at most LARGEST bytes


@dataclass(frozen=True)
class Picture:
    """A PNG or WebP as a data: URI, with the step it was made at and its width and height."""

    source: str
    step: int
    width: int
    height: int


def newest(run: Run, folder: str) -> Picture | None:
    """The last of `folder`/step_*.png that can be read; those that cannot are added to the run's problems."""
    files = {int(match[1]): path for path in (run.folder / folder).glob("step_*.png") if (match := _STEP(path.name))}
    for step, path in sorted(files.items(), reverse=True):
        content = bounded(run, path)
        found = _picture(content, step) if content else None
        if found:
            return found
        run.problems.append(f"{folder}/{path.name} is not a picture")
    return None


_STEP = re.compile(r"step_(\d{1,12})\.png").fullmatch


def _picture(content: bytes, step: int) -> Picture | None:
    """The picture in a PNG file, scaled down if it is too large; None if it cannot be read."""
    from PIL import Image  # a refused request does not wait for it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                image.load()
                kind = "png"
                if image.width > WIDEST or len(content) > LARGEST:
                    image.thumbnail((WIDEST, 4 * WIDEST))
                    content, kind = _compressed(image), "webp"
                data = base64.b64encode(content).decode()
                return Picture(f"data:image/{kind};base64,{data}", step, image.width, image.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _compressed(image: "Image") -> bytes:
    """The image as WebP, in the best of the QUALITIES that stays within LARGEST."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= LARGEST:
            break
    return buffer.getvalue()
