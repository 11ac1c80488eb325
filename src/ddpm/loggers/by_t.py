"""Histograms over t: the terms of a sum over t = 1..T, averaged in a few bins."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

BINS = 25  # of t in a histogram, at most

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def edges_of_t(T: int) -> Integers:
    """The first t of each bin of 1..T, and T + 1."""
    bins = min(BINS, T)
    return 1 + -(-np.arange(bins + 1) * T // bins)


def means_by_t(t: Tensor | Sequence[float], parts: Tensor | Sequence[float], T: int) -> list[float]:
    """Average the terms of a sum over t = 1..T in each bin of t; `t` says to which term each of the parts belongs."""
    edges = edges_of_t(T)
    sums, _ = np.histogram(np.asarray(t), edges, weights=np.asarray(parts, np.float64))
    means: list[float] = (sums / np.diff(edges)).tolist()
    return means
