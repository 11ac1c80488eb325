"""uint8 at rest, [-1, 1] in the network: the only place where one becomes the other.

The quantisation rule. Level k = 0..255 stands for k / 127.5 - 1, the centre of the decoder's k-th bin (Section 3.3), so
that 0 is -1 and 255 is 1. Back, a value goes to the nearest level (ties to even), and what lies outside [-1, 1] to the
nearest end. k -> x -> k is exact in float32. Truncation, which some implementations use, would darken every picture by
half a level.
"""

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor


def to_unit(levels: UInt8[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """k / 127.5 - 1, float32, on the device of `levels`."""
    return levels.to(torch.float32) / 127.5 - 1


def to_uint8(x: Float[Tensor, "*any"]) -> UInt8[Tensor, "*any"]:
    """The nearest level. Computed in float32 at least: bfloat16 cannot tell 254 from 255."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return ((wide + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def numbers(x: Float[Tensor, "b *event"]) -> Float[Tensor, "b *event"]:
    """The samples, if all of them are numbers: what is nan would become a black pixel.

    Raises:
        ValueError: some are not.
    """
    if count := int(x.isnan().flatten(1).any(1).sum()):
        raise ValueError(f"{count} of {len(x)} samples are not numbers (nan): the network, or its guidance, overflows")
    return x


def unit(batch: Shaped[Tensor, "b *event"]) -> Float[Tensor, "b *event"]:
    """A batch as the network takes it: uint8 images scaled, points in the plane as they are."""
    return to_unit(batch) if batch.dtype == torch.uint8 else batch


def flip(images: Shaped[Tensor, "b c h w"], mirrored: Bool[Tensor, " b"]) -> Shaped[Tensor, "b c h w"]:
    """The images, those that `mirrored` names with left and right exchanged."""
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
