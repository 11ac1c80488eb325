"""Features of many images, accumulated and reduced across processes by torchmetrics.

Means and covariances in memory that does not grow, and rows in the order of their samples, whichever process made them.

What accumulates computes on the device that it was moved to, which must have float64, and for several GPU processes be
the GPU.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float, Float64, Int64, Real
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torchmetrics import Metric

from ddpm.diffusion.wide import wide
from ddpm.files import whole_file


class FeatureStatistics:
    """(n, mu, C): what FID needs to know of a set of images; C is divided by n - 1.

    Not a dataclass, because torchmetrics takes those apart when they are the result of a metric.
    """

    def __init__(self, count: int, mean: Float64[Tensor, " d"], cov: Float64[Tensor, "d d"]) -> None:
        self.count: Final = count
        self.mean: Final = mean
        self.cov: Final = cov

    @classmethod
    def of(cls, pool: Float[Tensor, "n d"]) -> "FeatureStatistics":
        """The statistics of features that are all in memory.

        Raises:
            ValueError: fewer than two, or not finite.
        """
        x = pool.double()
        return cls.from_sums(len(x), x.sum(0), x.T @ x)

    @classmethod
    def from_sums(cls, count: int, total: Float64[Tensor, " d"], outer: Float64[Tensor, "d d"]) -> "FeatureStatistics":
        """The statistics by n, sum(x) and sum(x x^T).

        These add: neither batches nor processes can change them but for rounding.
        """
        if count < 2:
            raise ValueError(f"FID needs at least 2 images, not {count}: a covariance is not defined for fewer")
        if not outer.isfinite().all():
            raise ValueError("the features are not finite, so FID is not defined: are the images?")
        mean = total / count
        return cls(count, mean.cpu(), ((outer - count * mean.outer(mean)) / (count - 1)).cpu())

    def save(self, path: Path, protocol: Mapping[str, str | int]) -> None:
        """Write a safetensors file, whole or not at all, with everything that the statistics depend on."""
        tensors = {"mean": self.mean.contiguous(), "cov": self.cov.contiguous()}
        about = {"count": str(self.count), "protocol": json.dumps(dict(protocol))}
        with whole_file(path, shared=True) as file:
            file.write(save(tensors, about))

    @classmethod
    def load(cls, path: Path, protocol: Mapping[str, str | int]) -> "FeatureStatistics":
        """From a file that `save` wrote.

        Raises:
            ValueError: no such file, or its statistics are those of another protocol.
        """
        try:
            with safe_open(path, framework="pt") as file:
                found = json.loads(file.metadata()["protocol"])
                read = cls(int(file.metadata()["count"]), file.get_tensor("mean"), file.get_tensor("cov"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a file of feature statistics") from error
        for key in [*protocol, *found]:
            if found.get(key) != protocol.get(key):
                raise ValueError(
                    f"{path} was made by another protocol: {key} is {found.get(key)!r}, not {protocol.get(key)!r}"
                )
        return read


class FeatureMoments(Metric):
    """FeatureStatistics of everything seen on all processes, in memory that does not grow with it."""

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, pool: Float[Tensor, "b d"]) -> None:
        x = wide(pool, self.total.device)
        self.count += len(x)
        self.total += x.sum(0)
        self.outer += x.T @ x

    def compute(self) -> FeatureStatistics:
        return FeatureStatistics.from_sums(int(self.count), self.total, self.outer)


class InOrder(Metric):
    """Rows (features or pixels) with the indices of their samples, from all processes and in order of the index."""

    full_state_update = True
    rows: list[Tensor]
    index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx=_cat)
        self.add_state("index", [], dist_reduce_fx=_cat)

    def update(self, rows: Real[Tensor, "b d"], index: Int64[Tensor, " b"]) -> None:
        self.rows.append(rows.to(self.device, torch.float32))
        self.index.append(index.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        # torchmetrics gathers list by list: every rank brings just one, also a rank that saw nothing.
        self.rows = [_cat(self.rows) if self.rows else torch.empty(0, 0, device=self.device)]
        self.index = [_cat(self.index) if self.index else torch.empty(0, dtype=torch.int64, device=self.device)]
        super().sync(*args, **kwargs)

    def in_order(self) -> Float[Tensor, "n d"]:
        """The rows by index, on the CPU.

        Raises:
            ValueError: a sample was seen twice.
        """
        index, order = _cat(self.index).sort()
        if (repeated := index[1:] == index[:-1]).any():
            raise ValueError(f"sample {int(index[1:][repeated][0])} was counted twice")
        return _cat(self.rows)[order].cpu()

    def compute(self) -> Any:
        return self.in_order()


def _cat(parts: Tensor | list[Tensor]) -> Tensor:
    """One tensor; a rank that saw nothing has brought one that is empty, of no particular width."""
    if isinstance(parts, Tensor):  # gathered already
        return parts
    return torch.cat([part for part in parts if part.numel()] or parts[:1])
