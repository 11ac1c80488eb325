"""What is known of every metric, without torch: read from conf/metric/ and from the classes that it names."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ddpm.config.facts import fact
from ddpm.config.groups import options_of
from ddpm.config.targets import target_of

SPLITS = ("train", "test")
FIRST = ("inception_score", "fid")  # in tables, as in the paper's
KINDS = ("ddpm.data.kind.Images", "ddpm.data.kind.Points")  # whose bounds are metrics, too
BOUNDS = tuple(name for kind in KINDS for name in fact(kind, "quantities"))


@dataclass(frozen=True)
class Quantity:
    """A number of results.json as tables show it.

    Attributes:
        digits: after the point.
        better: "higher", "lower", or "" where nothing is known of it: then it is not ranked.
        error: the name of the spread that is shown beside it.
    """

    title: str
    digits: int = 4
    better: str = ""
    error: str | None = None

    @property
    def best(self) -> Callable[..., float] | None:
        """What picks the best of several values."""
        return {"higher": max, "lower": min}.get(self.better)


def sample_metrics() -> list[str]:
    """The metrics of samples: the options of conf/metric/."""
    return options_of("metric")


def facts_of(metric: str, name: str) -> Any:
    """What the class of a metric of samples states of itself."""
    return fact(target_of("metric", metric), name)


def quantities_of(metric: str) -> list[str]:
    """The names in results.json of what a metric makes: precision and recall of `precision_recall`."""
    return list(facts_of(metric, "quantities") or ()) if metric in sample_metrics() else [metric]


def sample_quantities(which: Callable[[str], bool] = lambda metric: True) -> tuple[str, ...]:
    """The quantities of the metrics of samples that fit."""
    return tuple(name for metric in sample_metrics() if which(metric) for name in quantities_of(metric))


def known(measured: Iterable[str] = ()) -> list[str]:
    """Every name that a quantity may have, in the order of tables; last come measured ones that nobody registered."""
    names = [name for base in _quantities() for name in (base, *(f"{base}_{split}" for split in SPLITS))]
    return [*names, *(name for name in dict.fromkeys(measured) if name not in names and not name.endswith("_gap"))]


def of(name: str) -> Quantity:
    """What `fid` or `fid_test` is; of an unknown metric, as of a missing plugin, its name."""
    base, _, split = name.rpartition("_")
    if split in SPLITS and base in _quantities():
        return replace(_quantities()[base], title=f"{_quantities()[base].title}, {split}")
    return _quantities().get(name) or Quantity(name)


def _quantities() -> dict[str, Quantity]:
    return _read(tuple(target_of("metric", metric) for metric in sample_metrics()))


@functools.cache
def _read(targets: tuple[str, ...]) -> dict[str, Quantity]:
    stated = [fact(target, "quantities") or {} for target in (*targets, *KINDS)]
    found = {name: Quantity(**facts) for each in stated for name, facts in each.items()}
    return {name: found[name] for name in (*(first for first in FIRST if first in found), *found)}
