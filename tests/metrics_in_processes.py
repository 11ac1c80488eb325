"""Metrics accumulated by several processes: a module of its own, which the processes can import."""

import itertools
import json
from datetime import timedelta

import torch
import torch.distributed as dist

from ddpm.metrics.features import Features
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.kid import KernelDistance
from ddpm.metrics.metric import Reference
from ddpm.metrics.precision_recall import PrecisionRecall
from ddpm.metrics.statistics import FeatureStatistics

CHUNK = 16


def some_features(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) @ torch.linspace(0.1, 3, d).diag()


def held(pool):
    """What metrics are held against."""
    return Reference("test", FeatureStatistics.of(pool), pool)


def begun(metric, x=None, index=None, width=6):
    """The metric, fed with rows that are both pooled features and logits."""
    metric.begin(width)
    if x is not None:
        metric.update(Features(x, x), torch.arange(len(x)) if index is None else index)
    return metric


def numbers(metric, n, reference=None):
    """All that it computes, in one list."""
    return [*itertools.chain(*(found.values() for found in metric.compute(n, reference).values()))]


def metrics_over(rank, world_size, n):
    """What each process computes: chunks of indices dealt out in turn, the last one short."""
    reference = held(some_features(300, seed=1) + 0.2)
    metrics = [FrechetDistance(), InceptionScore(), KernelDistance(subsets=5, subset_size=15), PrecisionRecall()]
    x = some_features(n)
    for metric in metrics:
        begun(metric)
        for index in torch.arange(n).split(CHUNK)[rank::world_size]:
            metric.update(Features(x[index], x[index]), index)
    return [*itertools.chain(*(numbers(metric, n, reference) for metric in metrics))]


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
