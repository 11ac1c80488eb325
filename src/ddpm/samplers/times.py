"""Files of times: those that a sampler visits, with what tells whether they are those of a schedule."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ddpm.diffusion.process import ForwardProcess

MAX_BYTES = 1 << 20  # bytes; ours have 2 kB


def described(times: Sequence[int], q: ForwardProcess) -> dict[str, Any]:
    """The times as a file holds them: T, the times from T down, and alpha_bar there, by which the schedule is known."""
    return {"T": q.T, "times": [*times], "alpha_bar": q.alpha_bar.cpu()[[*times]].tolist()}


def read(path: Path, q: ForwardProcess) -> list[int]:
    """The times in a file, for this schedule.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, its times do not descend from T, or they are those of another schedule.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError
        content = json.loads(path.read_text(encoding="utf-8"))
        T, times, alpha_bar = (content[key] for key in ("T", "times", "alpha_bar"))
        if not times or not all(type(t) is int for t in [T, *times]):
            raise ValueError
        alpha_bar = [float(each) for each in alpha_bar]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"{path} is no file of times, as ddpm steps writes it") from None
    if T != q.T:
        raise ValueError(f"{path} has times of T={T}, and here T={q.T}: make some with ddpm steps ckpt=...")
    if times[0] != T or times[-1] < 1 or any(a <= b for a, b in pairwise(times)):
        raise ValueError(f"{path} has times that do not descend from T={T} to 1 or above")
    here = q.alpha_bar.cpu()[times].tolist()
    if len(alpha_bar) != len(here) or not all(abs(a - b) <= 1e-6 * b for a, b in zip(alpha_bar, here, strict=True)):
        raise ValueError(f"{path} has times of another schedule: its alpha_bar is not this one's")
    return list(times)
