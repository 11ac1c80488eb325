"""What a reverse process may be told of each example: its class, an image to go by, or both."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

DROPPED = -1  # the label of an example whose class is not told


@dataclass(frozen=True)
class Condition:
    """What is known of every example of a batch; a network that takes it is called as `network(x_t, t - 1, condition)`.

    Attributes:
        labels: a class in 0..K-1, or `DROPPED`.
        image: of the height and width of x_t, in [-1, 1]; 0 throughout where it is not told.
    """

    labels: Int64[Tensor, " b"] | None = None
    image: Float[Tensor, "b c h w"] | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts that there are, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        """The condition with every part changed."""
        return Condition(**{name: change(part) for name, part in self.parts.items()})

    def to(self, device: torch.device | str) -> "Condition":
        """The condition on a device."""
        return self.map(lambda part: part.to(device))

    def dropped(self, which: Bool[Tensor, " b"] | None = None) -> "Condition":
        """The condition of which these examples (by default all) are told nothing."""
        labels, image = self.labels, self.image
        if labels is not None:
            labels = torch.full_like(labels, DROPPED) if which is None else labels.masked_fill(which, DROPPED)
        if image is not None:
            image = torch.zeros_like(image) if which is None else image.masked_fill(which[:, None, None, None], 0)
        return Condition(labels, image)
