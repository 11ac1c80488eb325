"""What an evaluation will cost, said before it begins."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from ddpm.diffusion.condition import Condition
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.evaluation.chunks import Chunks
from ddpm.messages import say
from ddpm.progress import duration

TRIAL = 32  # images that tell how long an evaluation of the network takes on a CPU


class Part(NamedTuple):
    """A part of an evaluation."""

    sentence: str  # what is done, with its number of evaluations of the network
    kept_as: str  # what its finished chunks are called
    images: int
    evaluations: int  # of the network for each image


def announce(
    work: Sequence[Part],
    p: ReverseProcess,
    shape: Sequence[int],
    chunks: Chunks,
    precision: Callable[[], AbstractContextManager[None]],
    told: Callable[[Sequence[int]], Condition | None] = lambda indices: None,
) -> None:
    """Say what will be done, and what it costs in evaluations of the network and in time.

    Args:
        shape: of one image.
        precision: entered around every evaluation of the network.
        told: what p is told of the samples with these indices.
    """
    parts = [(part, chunk) for part in work for chunk in chunks.of(part.images)]
    costs = [len(chunk.indices) * part.evaluations for part, chunk in parts]
    done = sum(cost for cost, (part, chunk) in zip(costs, parts, strict=True) if chunks.has(part.kept_as, chunk.k))
    left = sum(costs) - done
    time_left = duration(left * _seconds_per_evaluation(p, shape, chunks, precision, told))
    going_on = f"{done:,} of them are done already; " if done else ""
    say(*(part.sentence for part in work), f"{going_on}about {time_left} for {chunks.rank.described}")


def _seconds_per_evaluation(
    p: ReverseProcess,
    shape: Sequence[int],
    chunks: Chunks,
    precision: Callable[[], AbstractContextManager[None]],
    told: Callable[[Sequence[int]], Condition | None],
) -> float:
    """Time one evaluation of the network for one image; of two trials the first warms up."""
    device = chunks.rank.device
    n = chunks.size if device.type == "cuda" else min(chunks.size, TRIAL)
    x_t, t = torch.zeros(n, *shape, device=device), torch.full((n,), p.q.T, device=device)
    condition = told(range(n))
    p = p.given(condition)
    for _ in range(2):
        begun = time.perf_counter()
        with torch.no_grad(), precision():
            p(x_t, t).x_0.sum().item()  # waits for the device
    return (time.perf_counter() - begun) / n
