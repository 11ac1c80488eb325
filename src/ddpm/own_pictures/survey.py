"""A look at the pictures of a folder, before anything is decided about them."""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ddpm.data.dataset import SPLITS, DataError, Split
from ddpm.data.encoded import attempt
from ddpm.data.folder import Folder
from ddpm.data.picture import PictureTransform, eight_bits, opened
from ddpm.own_pictures.pictures import SAME_ASPECT, Pictures
from ddpm.progress import Bar

MOST_READ = 5000  # pictures that are read: of more, as many at equal distances
SHOWN = 500  # pictures from which on it takes long enough to be watched
SIDE = 32  # pixels of a side at which colours are looked for
COLOURED = 8  # levels between red, green and blue from which on a pixel is no gray that a JPEG has tinted


@dataclass(frozen=True)
class Seen:
    """One picture: its size when it is upright, whether it is gray, and whether it has pixels that are not opaque."""

    height: int
    width: int
    gray: bool
    transparent: bool
    digest: bytes


class Look:
    """What a picture's file holds, as `PictureTransform` reads it."""

    def __init__(self, background: tuple[int, int, int]) -> None:
        self.small = PictureTransform(3, SIDE, SIDE, background)

    def __call__(self, encoded: bytes) -> Seen:
        """Raises DataError with the reason, for the caller to add the file, if this is not a whole picture."""
        with opened(encoded) as image:
            exact = eight_bits(image)
            alpha = exact.convert("RGBA").getchannel("A") if exact.has_transparency_data else None
            pixels = self.small.pixels(image).astype(int)
            coloured = np.ptp(pixels, axis=0) > COLOURED
            transparent = alpha is not None and int(np.asarray(alpha).min()) < 255
            return Seen(image.height, image.width, not coloured.any(), transparent, hashlib.sha256(encoded).digest())


def survey(folder: Folder) -> Pictures:
    """Read the pictures of a folder, or `MOST_READ` of them.

    Raises:
        DataError: there are none, none can be read, or all are the same picture.
    """
    places, look, begun = _places(folder), Look(folder.transform.background), time.perf_counter()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Bar("looking at pictures", len(places), enabled=len(places) >= SHOWN) as bar,
    ):
        found = list(bar.watch(pool.map(lambda at: attempt(folder.sources[at[0]], look, at[1]), places)))
    seconds = (time.perf_counter() - begun) / len(found)
    damaged = [each for each in found if isinstance(each, str)]
    seen = [each for each in found if isinstance(each, Seen)]
    if not seen:
        raise DataError(f"none of the {len(found):,} pictures can be read, the first of them {damaged[0]}")
    splits_of: dict[bytes, list[Split]] = {}
    for (split, _), each in zip(places, found, strict=True):
        if isinstance(each, Seen):
            splits_of.setdefault(each.digest, []).append(split)
    if len(splits_of) == 1:
        raise DataError(f"{folder.path} holds one picture, {len(seen):,} times: add others, a hundred or more")
    heights, widths = (np.array([getattr(each, side) for each in seen]) for side in ("height", "width"))
    height, width = int(np.median(heights)), int(np.median(widths))
    off = np.abs(np.log(heights / widths) - np.log(height / width))
    by_size = np.argsort(heights * widths, kind="stable")
    smallest, largest = ((int(heights[k]), int(widths[k])) for k in (by_size[0], by_size[-1]))
    return Pictures(
        name=folder.path.absolute().name,
        train=len(folder.sources["train"]),
        test=len(folder.sources["test"]),
        looked_at=len(found),
        height=height,
        width=width,
        agreeing=float((off < np.log(SAME_ASPECT)).mean()),
        smallest=smallest,
        largest=largest,
        gray=sum(each.gray for each in seen),
        transparent=sum(each.transparent for each in seen),
        classes=folder.num_classes,
        copies=len(seen) - len(splits_of),
        crossing=sum(len(set(splits)) > 1 for splits in splits_of.values()),
        damaged=damaged,
        seconds=seconds,
        unused=tuple(folder.unused),
    )


def _places(folder: Folder) -> list[tuple[Split, int]]:
    """Split and index of the pictures that are read."""
    every = [(split, index) for split in SPLITS for index in range(len(folder.sources[split]))]
    return every if len(every) <= MOST_READ else [every[k * len(every) // MOST_READ] for k in range(MOST_READ)]
