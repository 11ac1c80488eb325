"""IS, FID, KID and precision/recall on features, accumulated and reduced across processes by torchmetrics.

The formulas are torch-fidelity's. Added here: for FID, sums in memory that does not grow; for the others, features in
the order of their samples, whichever process made them.

A metric computes on the device that it was moved to, which for several GPU processes must be the GPU; on Apple's MPS,
which has no float64, leave it on the CPU.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric
from torchmetrics import Metric

from ddpm.files import whole_file

SEED = 2020  # torch-fidelity's, of the permutation of IS and the subsets of KID


class Estimate(NamedTuple):
    """`std` is a deviation over splits or subsets of the same samples, not the error of `value`."""

    value: float
    std: float


class PrecisionAndRecall(NamedTuple):
    precision: float
    recall: float


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
        """Of features that are all in hand.

        Raises:
            ValueError: fewer than two, or not finite.
        """
        x = pool.double()
        return cls.from_sums(len(x), x.sum(0), x.T @ x)

    @classmethod
    def from_sums(cls, count: int, total: Float64[Tensor, " d"], outer: Float64[Tensor, "d d"]) -> "FeatureStatistics":
        """Of n, sum(x) and sum(x x^T), which add: neither batches nor processes can change them but for rounding."""
        if count < 2:
            raise ValueError(f"FID needs at least 2 images, not {count}: a covariance is not defined for fewer")
        if not outer.isfinite().all():
            raise ValueError("the features are not finite, so FID is not defined: are the images?")
        mean = total / count
        return cls(count, mean.cpu(), ((outer - count * mean.outer(mean)) / (count - 1)).cpu())

    def save(self, path: Path, protocol: Mapping[str, str | int]) -> None:
        """To a safetensors file, whole or not at all, with everything that the statistics depend on."""
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


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)); Heusel et al. 2017, Section 2.

    FID, where the features are Inception's. Biased upwards for few samples: compare at equal counts only.

    The trace of the root is the sum of the roots of the eigenvalues of C_a C_b, which are those of the symmetric
    C_a^(1/2) C_b C_a^(1/2). A root of the product itself turns complex or fails where a covariance is singular, as it
    is for fewer images than features; the symmetric form is real, and more exact there than the product's eigenvalues.

    Raises:
        ValueError: the statistics are of features of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics of {len(a.mean)} and of {len(b.mean)} features have no distance")
    variances, axes = torch.linalg.eigh(a.cov)
    half = axes * variances.clamp(min=0).sqrt()
    root = torch.linalg.eigvalsh(half.T @ b.cov @ half).clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * root)


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
        x = pool.to(self.total)
        self.count += len(x)
        self.total += x.sum(0)
        self.outer += x.T @ x

    def compute(self) -> FeatureStatistics:
        return FeatureStatistics.from_sums(int(self.count), self.total, self.outer)


class InOrder(Metric):
    """Rows of features with the indices of their samples, gathered from all processes and put in order of the index."""

    full_state_update = True
    rows: list[Tensor]
    index: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx=_cat)
        self.add_state("index", [], dist_reduce_fx=_cat)

    def update(self, rows: Float[Tensor, "b d"], index: Int64[Tensor, " b"]) -> None:
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


class InceptionScore(InOrder):
    """exp E_x KL(p(y|x) || p(y)), mean and deviation over splits; Salimans et al. 2016, Section 4.

    Fed with logits without bias. The samples are dealt to the splits by torch-fidelity's fixed permutation of their
    indices, so the value depends neither on the number of processes nor on the global random state.
    """

    def __init__(self, splits: int = 10) -> None:
        super().__init__()
        self.splits: Final = splits

    def compute(self) -> Estimate:
        logits = self.in_order()
        if len(logits) < self.splits:
            raise ValueError(f"the Inception Score over {self.splits} splits needs as many images, not {len(logits)}")
        score = isc_features_to_metric(logits, self.splits, shuffle=True, rng_seed=SEED)
        return Estimate(score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD])


class KernelDistance(InOrder):
    """KID: the unbiased squared MMD under the kernel (x^T y / d + 1)^3; Binkowski et al. 2018, Section 4.

    Mean and deviation over random subsets of both sides, which do not depend on the global random state. Unbiased, so
    slightly negative values are right for equal distributions.
    """

    def __init__(self, reference: Float[Tensor, "m d"], subsets: int = 100, subset_size: int = 1000) -> None:
        super().__init__()
        if not 2 <= subset_size <= len(reference):
            raise ValueError(
                f"KID's subsets must have 2 to {len(reference)} images (the reference's), not {subset_size}"
            )
        self.reference: Final = reference.cpu()
        self.subsets: Final = subsets
        self.subset_size: Final = subset_size

    def compute(self) -> Estimate:
        pool = self.in_order()
        if len(pool) < self.subset_size:
            raise ValueError(f"KID over subsets of {self.subset_size} needs as many images, not {len(pool)}")
        distance = kid_features_to_metric(
            pool,
            self.reference,
            kid_subsets=self.subsets,
            kid_subset_size=self.subset_size,
            rng_seed=SEED,
            verbose=False,
        )
        return Estimate(distance[KEY_METRIC_KID_MEAN], distance[KEY_METRIC_KID_STD])


class PrecisionRecall(InOrder):
    """Improved precision and recall; Kynkaanniemi et al. 2019, Eq. (2).

    The share of samples within reach of the real images, and of real images within reach of the samples; a reach is the
    distance to the k-th nearest neighbour of one's own kind. Depends on the counts: compare at equal ones only.
    """

    def __init__(self, reference: Float[Tensor, "m d"], neighborhood: int = 3) -> None:
        super().__init__()
        if not 1 <= neighborhood < len(reference):
            raise ValueError(f"a neighbour number {neighborhood} does not exist among {len(reference)} real images")
        self.reference: Final = reference.cpu()
        self.neighborhood: Final = neighborhood

    def compute(self) -> PrecisionAndRecall:
        pool = self.in_order()
        if len(pool) <= self.neighborhood:
            raise ValueError(f"a neighbour number {self.neighborhood} does not exist among {len(pool)} samples")
        # In parts, or 50,000 samples would need 30 GB for their distances.
        shares = prc_features_to_metric(
            pool,
            self.reference,
            prc_neighborhood=self.neighborhood,
            prc_batch_size=2500,
            save_cpu_ram=True,
            verbose=False,
        )
        return PrecisionAndRecall(shares[KEY_METRIC_PRECISION], shares[KEY_METRIC_RECALL])


def _cat(parts: Tensor | list[Tensor]) -> Tensor:
    """One tensor; a rank that saw nothing has brought one that is empty, of no particular width."""
    if isinstance(parts, Tensor):  # gathered already
        return parts
    return torch.cat([part for part in parts if part.numel()] or parts[:1])
