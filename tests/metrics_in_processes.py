"""Metrics accumulated by several processes: a module of its own, which the processes can import."""

import itertools
import json
from datetime import timedelta

import torch
import torch.distributed as dist

from ddpm.metrics.statistics import (
    FeatureMoments,
    FeatureStatistics,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
    frechet_distance,
)

CHUNK = 16


def some_features(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) @ torch.linspace(0.1, 3, d).diag()


def metrics_over(rank, world_size, n):
    """What each process computes: chunks of indices dealt out in turn, the last one short."""
    reference = some_features(300, seed=1) + 0.2
    moments = FeatureMoments(6)
    others = [InceptionScore(), KernelDistance(reference, subsets=5, subset_size=15), PrecisionRecall(reference)]
    x = some_features(n)
    for index in torch.arange(n).split(CHUNK)[rank::world_size]:
        moments.update(x[index])
        for metric in others:
            metric.update(x[index], index)
    fid = frechet_distance(moments.compute(), FeatureStatistics.of(reference))
    return [fid, *itertools.chain(*(metric.compute() for metric in others))]


def process(rank, folder):
    for world_size in (3, 2):
        if rank < world_size:
            store = dist.FileStore(str(folder / f"store{world_size}"), world_size)
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
            )
            values = {n: metrics_over(rank, world_size, n) for n in (101, 20)}
            (folder / f"{world_size}-{rank}.json").write_text(json.dumps(values))
            dist.destroy_process_group()
