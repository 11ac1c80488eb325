"""What is known of a folder of pictures, and the sizes at which a network can learn them: numbers only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.config.errors import RequestError

SIZES = (16, 32, 64, 128)  # pixels of the longer side that are proposed; more only where they are asked for
SMALLEST_SIDE, LARGEST_SIDE = 4, 1024
GLOBAL = 8  # pixels of a side at which attention sees the whole picture at little cost
MOST_HALVINGS = 6
NEIGHBOURS = "figures=[nearest_neighbours] figure.nearest_neighbours.spaces=[pixels]"
FEW = 1000  # pictures that a network soon knows by heart
SAME_ASPECT, MAJORITY = 1.15, 0.6  # most pictures have this one's aspect ratio if 60 % do within 15 %


@dataclass(frozen=True)
class Pictures:
    """What is known of a folder of pictures.

    Attributes:
        name: what the folder is called.
        train, test: how many pictures there are in each split.
        looked_at: how many of them were read.
        height, width: medians, in pixels.
        agreeing: the share of pictures whose aspect ratio is near that of the medians.
        smallest, largest: (height, width) of the pictures of the fewest and of the most pixels.
        gray, transparent: how many pictures have no colour, and how many have pixels that are not opaque.
        classes: how many sub-folders are classes; 0 for none.
        unused: sub-folders whose pictures are in neither split.
        copies: how many pictures are byte for byte another one that was read before.
        crossing: how many of these are in the other split.
        damaged: name and reason of each picture that cannot be read.
        seconds: that a picture takes to be read.
    """

    name: str
    train: int
    test: int
    looked_at: int
    height: int
    width: int
    agreeing: float
    smallest: tuple[int, int]
    largest: tuple[int, int]
    gray: int
    transparent: int
    classes: int
    copies: int
    crossing: int
    damaged: Sequence[str]
    seconds: float
    unused: tuple[str, ...] = ()

    @property
    def readable(self) -> int:
        """How many of the pictures that were looked at are pictures."""
        return self.looked_at - len(self.damaged)

    @property
    def longer(self) -> int:
        """Pixels of the longer side."""
        return max(self.height, self.width)


def lines(pictures: Pictures) -> list[str]:
    """What is known of the pictures, a line each."""
    made = [f"{pictures.name}: {pictures.train:,} pictures to train on, {pictures.test:,} to test on"]
    if pictures.looked_at < pictures.train + pictures.test:
        made[0] += f"; {pictures.looked_at:,} of them were looked at"
    smallest, largest = ("x".join(map(str, size)) for size in (pictures.smallest, pictures.largest))
    sizes_seen = f"all of them {smallest}" if smallest == largest else f"from {smallest} to {largest}"
    alike = f", {pictures.agreeing:.0%} of them with nearly the aspect ratio of {pictures.height}x{pictures.width}"
    made.append(f"height and width: {sizes_seen}{alike if smallest != largest else ''}")
    some = f"{pictures.gray:,} gray, the others in colour"
    made.append(f"colours: {({0: 'all in colour', pictures.readable: 'all gray'}).get(pictures.gray, some)}")
    if pictures.transparent:
        made.append(f"transparent: {pictures.transparent:,} have such pixels, which are laid over data.background")
    for folder in pictures.unused:
        made.append(f"{folder}/: its pictures are in neither split, since there is another folder to test on")
    if pictures.classes:
        made.append(f"classes: {pictures.classes} sub-folders; condition=label tells the network which")
    if pictures.copies:
        across = f"; in both splits: {pictures.crossing:,}" if pictures.crossing else ""
        made.append(f"copies: {pictures.copies:,} files are the same as another{across}")
    if pictures.damaged:
        others = f", and {len(pictures.damaged) - 1:,} more" if len(pictures.damaged) > 1 else ""
        made.append(f"damaged: {pictures.damaged[0]}{others}")
    if pictures.train < FEW:
        made.append(f"so few are soon known by heart; whether samples are copies: {NEIGHBOURS}")
    return made


def halvings(size: int) -> int:
    """How often a network for this size halves it: down to about `GLOBAL` pixels."""
    return min(max(1, round(math.log2(size / GLOBAL))), MOST_HALVINGS) if size > 1 else 1


def sizes(pictures: Pictures, size: object = None) -> list[int]:
    """The sizes that are possible, ascending; of them only `size`, if that is asked for.

    Raises:
        RequestError: it is not possible.
    """
    if size is not None:
        return [_checked(size, pictures)]
    if pictures.longer < SMALLEST_SIDE:
        raise RequestError(
            f"the pictures are {pictures.height}x{pictures.width}: "
            f"bring some of {SMALLEST_SIDE}x{SMALLEST_SIDE} or more"
        )
    own = _halving(pictures.longer)[0]
    found = {each for each in SIZES if each <= pictures.longer}
    return sorted(found | ({own} if own <= SIZES[2] else set()) or {own})


def _checked(size: object, pictures: Pictures) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or not SMALLEST_SIDE <= size <= LARGEST_SIDE:
        raise RequestError(f"size={size} must be a whole number of pixels from {SMALLEST_SIDE} to {LARGEST_SIDE:,}")
    below, above = _halving(size)
    if below != size:
        near = f"size={below}" if above > pictures.longer else f"size={below} or size={above}"
        raise RequestError(f"size={size} does not halve {halvings(size)} times, as a network for it would: use {near}")
    if size > pictures.longer:
        raise RequestError(
            f"size={size} is larger than the pictures, which are {pictures.height}x{pictures.width}: use "
            f"size={_halving(pictures.longer)[0]}, or larger pictures"
        )
    return size


def _halving(size: int) -> tuple[int, int]:
    """The nearest sizes from below and from above that halve as often as a network for them does."""
    fits = [each % 2 ** halvings(each) == 0 for each in range(2 * size + 2)]
    below = max(each for each in range(SMALLEST_SIDE, max(size, SMALLEST_SIDE) + 1) if fits[each])
    return below, next(each for each in range(size, 2 * size + 2) if fits[each])


def shape(pictures: Pictures, size: int) -> tuple[int, int]:
    """Height and width at which pictures of this longer side are learned: square, unless most of them are not."""
    if pictures.agreeing < MAJORITY:
        return size, size
    unit = 2 ** halvings(size)
    shorter = min(pictures.height, pictures.width) / pictures.longer * size
    rounded = min(max(unit, round(shorter / unit) * unit), size)
    return (rounded, size) if pictures.height < pictures.width else (size, rounded)
