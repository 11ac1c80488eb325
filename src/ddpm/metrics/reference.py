"""Real images that samples are held against."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ddpm.metrics.statistics import FeatureStatistics


@dataclass(frozen=True)
class Reference:
    """Real images of a split: mean and covariance of all their features, and some of the features themselves.

    Attributes:
        suffix: of the names of quantities that are held against it, where there are two references.
    """

    split: Literal["train", "test"]
    statistics: FeatureStatistics
    pool: Float[Tensor, "n d"] | None = None
    suffix: str = ""

    @property
    def some_features(self) -> Float[Tensor, "n d"]:
        assert self.pool is not None, "only moments were computed"
        return self.pool
