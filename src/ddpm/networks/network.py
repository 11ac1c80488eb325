"""What every network is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A function of a noisy example and its time, which knows nothing of diffusion.

    It is made with `in_channels` and `out_channels` (twice as many if the variance is learned), and with `image_size`
    [height, width] if its constructor takes that; its other settings are those of its file in conf/network/. An average
    of its weights has the same buffers. Layers that take statistics of a batch, as BatchNorm, need it in one part.

    Attributes:
        event_ndim: dimensions of an example that it takes: 3 for channels, height, width; 1 for vectors.
        takes: what it can be told of an example as a third argument of `forward`: "labels", and then its constructor
            takes `num_classes`; "image", and then it takes `condition_channels`. The argument has an attribute of this
            name (`ddpm.diffusion.condition.Condition`): of labels [b], -1 is no class; an image [b, c, H, W] of zeros
            is none. There is no third argument for a model that is told nothing.
        outer: names of its layers that read an example or give the output, which `optimizer.muon_lr` leaves to Adam.
    """

    event_ndim: ClassVar[int]
    takes: ClassVar[tuple[str, ...]] = ()
    outer: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, x: Float[Tensor, "b *event"], t: Int[Tensor, " b"]) -> Float[Tensor, "b *out"]:
        """The output at the examples x and the times t, counted from 0."""
