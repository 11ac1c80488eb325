"""What samples are held against: the features of a split's real images, computed once and kept."""

import hashlib
import json
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ddpm.data.dataset import Examples
from ddpm.diffusion.wide import with_float64
from ddpm.evaluation.chunks import Chunks
from ddpm.metrics.features import FeatureExtractor
from ddpm.metrics.statistics import FeatureMoments, FeatureStatistics, InOrder

DependsOn = dict[str, str | int]  # what statistics of real images depend on; not on the samples


def statistics(
    examples: Examples, extractor: FeatureExtractor, chunks: Chunks, depends_on: DependsOn, folder: Path | None
) -> FeatureStatistics:
    """The statistics of all examples, read from `folder` if they were computed by this protocol before."""
    path = folder / f"{_digest(depends_on)}.safetensors" if folder else None
    found = _load(path, depends_on) if path else None
    if chunks.rank.everywhere(found is not None):
        assert found is not None
        return found
    moments = FeatureMoments(extractor.width).to(with_float64(chunks.rank.device))
    for chunk in chunks.of(len(examples)):
        moments.update(extractor(chunks.examples(examples, chunk)[: len(chunk.indices)]).pool)
    computed: FeatureStatistics = moments.compute()
    if computed.count != len(examples):
        raise RuntimeError(f"{computed.count} examples were counted where {len(examples)} were due")
    if path and chunks.rank.index == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        computed.save(path, depends_on)
    return computed


def pool(examples: Examples, n: int, extractor: FeatureExtractor, chunks: Chunks) -> Float[Tensor, "n d"]:
    """The features of the first n examples, on every process."""
    rows = InOrder().to(with_float64(chunks.rank.device))
    for chunk in chunks.of(n):
        rows.update(extractor(chunks.examples(examples, chunk)[: len(chunk.indices)]).pool, chunk.indices)
    gathered: Tensor = rows.compute()
    return gathered


def _load(path: Path, depends_on: DependsOn) -> FeatureStatistics | None:
    try:
        return FeatureStatistics.load(path, depends_on)
    except ValueError:  # none, or damaged: it is only a copy
        return None


def _digest(depends_on: DependsOn) -> str:
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
