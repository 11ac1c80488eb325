"""What examples are: images of 256 levels, or points. Everything that differs between them, but how they are drawn."""

import math
from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float, Shaped
from torch import Tensor

from ddpm.data.pixels import to_uint8
from ddpm.diffusion.decoder import ContinuousDecoder, Decoder, DiscretizedDecoder


class Kind(ABC):
    """A kind of examples.

    Attributes:
        name: as messages say it, in the plural.
        bound: the metric that the bound is called.
        unit: of that metric.
        has_features: feature extractors look at such examples, so that there are metrics of samples.
        density: L_0 is a density, which may be negative in nats.
    """

    name: str
    bound: str
    unit: str
    has_features: bool
    density: bool

    @abstractmethod
    def decoder(self, cdf: str) -> Decoder:
        """The decoder of L_0; `cdf` is the setting evaluation.bits_per_dim.decoder."""

    @abstractmethod
    def decoder_name(self, cdf: str) -> str:
        """The decoder as the protocol of a number names it."""

    @abstractmethod
    def scale(self, num_dims: int) -> float:
        """Nats in one unit of the bound, for examples of so many dimensions."""

    @abstractmethod
    def stored(self, x: Float[Tensor, "b *event"]) -> Shaped[Tensor, "b *event"]:
        """Samples as a dataset holds examples."""


@final
class Images(Kind):
    """uint8 images, with the discretized decoder of Section 3.3 and bits per dimension."""

    name, bound, unit, has_features, density = "images", "bits_per_dim", "bits/dim", True, False

    def decoder(self, cdf: str) -> Decoder:
        return DiscretizedDecoder(cdf)

    def decoder_name(self, cdf: str) -> str:
        return cdf

    def scale(self, num_dims: int) -> float:
        return num_dims * math.log(2)

    def stored(self, x: Float[Tensor, "b *event"]) -> Shaped[Tensor, "b *event"]:
        return to_uint8(x)


@final
class Points(Kind):
    """Vectors of real numbers, as points in the plane, with a density and nats."""

    name, bound, unit, has_features, density = "points", "bound_nats", "nats", False, True

    def decoder(self, cdf: str) -> Decoder:
        return ContinuousDecoder()

    def decoder_name(self, cdf: str) -> str:
        return "density"

    def scale(self, num_dims: int) -> float:
        return 1.0

    def stored(self, x: Float[Tensor, "b *event"]) -> Shaped[Tensor, "b *event"]:
        return x


IMAGES, POINTS = Images(), Points()
KINDS: tuple[Kind, ...] = (IMAGES, POINTS)
