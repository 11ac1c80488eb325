"""Pictures of a run (grids of samples, strips of x_0 estimates), made small enough to be part of report.html."""

import base64
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.report.reading import bounded
from ddpm.report.run import ReportedRun

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST = 560  # pixels of width
MAX_BYTES = 60_000  # bytes
QUALITIES = (85, 50, 20)  # of WebP, tried in turn until a picture has at most MAX_BYTES bytes
FILM_WIDTH, FRAMES = 280, 12  # pixels, and frames of a film
FEWEST = 3  # pictures that make a film
FRAME, LAST = 400, 2000  # milliseconds


@dataclass(frozen=True)
class Picture:
    """A PNG or WebP as a data: URI, with the step it was made at and its width and height."""

    source: str
    step: int
    width: int
    height: int


def newest(run: ReportedRun, folder: str) -> Picture | None:
    """The last of `folder`/step_*.png that can be read; those that cannot are added to the run's problems."""
    for step, path in reversed(_steps(run, folder)):
        if found := _opened(run, path):
            return _still(*found, step)
    return None


def sheet(run: ReportedRun) -> Picture | None:
    """The contact sheet of the data that the run learned from, if it can be read."""
    path = run.folder / "data.png"
    found = _opened(run, path) if path.exists() else None
    return found and _still(*found, 0)


def film(run: ReportedRun) -> Picture | None:
    """The pictures of samples/ in turn, up to the last step, as an animated WebP; None for few, or of several sizes."""
    steps = _steps(run, "samples")
    if len(steps) < FEWEST:
        return None
    chosen = dict.fromkeys(steps[round(k * (len(steps) - 1) / (FRAMES - 1))] for k in range(FRAMES))
    stills = []
    for _, path in chosen:
        if found := _opened(run, path):
            found[0].thumbnail((FILM_WIDTH, 4 * FILM_WIDTH))  # at once: a stranger's may be of any size
            stills.append(found[0])
    if len(stills) < FEWEST or len({still.size for still in stills}) > 1:
        return None
    source = _compressed(
        stills[0], save_all=True, append_images=stills[1:], duration=[*[FRAME] * (len(stills) - 1), LAST]
    )
    return Picture(_uri("webp", source), steps[-1][0], *stills[0].size)


_STEP = re.compile(r"step_(\d{1,12})\.png").fullmatch


def _steps(run: ReportedRun, folder: str) -> list[tuple[int, Path]]:
    """The steps whose pictures are in a folder of the run, ascending."""
    return sorted(
        (int(match[1]), path) for path in (run.folder / folder).glob("step_*.png") if (match := _STEP(path.name))
    )


def _opened(run: ReportedRun, path: Path) -> "tuple[Image, bytes] | None":
    """The image in a PNG file of the run, and the file's content; None, and a problem of the run, if there is none."""
    from PIL import Image  # a refused request does not wait for it

    content = bounded(run, path) or b""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                return image.convert("RGB"), content
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        if (problem := f"{path.relative_to(run.folder)} is not a picture") not in run.problems:
            run.problems.append(problem)
        return None


def _still(image: "Image", content: bytes, step: int) -> Picture:
    """The image as it is in its file, or scaled down if it is too large."""
    kind = "png"
    if image.width > WIDEST or len(content) > MAX_BYTES:
        image.thumbnail((WIDEST, 4 * WIDEST))
        kind, content = "webp", _compressed(image)
    return Picture(_uri(kind, content), step, image.width, image.height)


def _compressed(image: "Image", **settings: Any) -> bytes:
    """The image as WebP, in the best of the QUALITIES that stays within MAX_BYTES."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, **settings)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
