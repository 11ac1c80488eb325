"""What every metric says of itself, by its name in results.json; read without torch.

The metrics of samples are those that conf/metric/ names, and the bound; each class states its facts
(`ddpm.metrics.metric.SampleMetric` documents them), and every table, ranking and search asks here.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ddpm.config import groups
from ddpm.config.facts import fact

BOUND = "ddpm.evaluation.bound.BoundOverSplit"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Quantity:
    """A number of results.json as tables show it.

    `error` is the part of it that is its own error, and `error_is` says what that is. Nothing is known of a quantity
    whose metric is not installed: it has its name as title and is not ranked.
    """

    title: str
    digits: int = 4
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    error: str | None = None
    error_is: str = ""
    in_tables: bool = True  # or in the notes alone

    @property
    def best(self) -> Callable[..., float]:
        """The function that chooses the best of several values, of a quantity that is ranked."""
        return max if self.better == "higher" else min


@dataclass(frozen=True)
class Registered:
    """The facts of a metric of samples that tables and searches need."""

    quantities: dict[str, Quantity]
    settings: dict[str, str]
    needs_reference: bool


def metrics() -> dict[str, Registered]:
    """The metrics of samples by their names in `evaluation.metrics`: the shipped ones in the order of conf/train.yaml,
    then the others."""
    return _metrics(tuple(groups.options_of("metric")))


def shipped() -> list[str]:
    """The metrics that conf/train.yaml loads, in the order of tables."""
    return _shipped(groups.CONF)


def bound() -> dict[str, Quantity]:
    """The quantities of the variational bound."""
    return _quantities(BOUND)


def known() -> list[str]:
    """Every name that a quantity may have in tables, in their order."""
    return [name for base in _all() for name in (base, *(f"{base}_{split}" for split in SPLITS))]


def of(name: str) -> Quantity:
    """What `fid` or `fid_test` is."""
    quantity = _all().get(base := base_of(name), Quantity(name))
    return quantity if base == name else replace(quantity, title=f"{quantity.title}, {name.rpartition('_')[2]}")


def base_of(name: str) -> str:
    """The name without the split: `fid` of `fid_test`."""
    base, _, split = name.rpartition("_")
    return base if split in SPLITS and base in _all() else name


def _all() -> dict[str, Quantity]:
    of_samples = {name: each for metric in metrics().values() for name, each in metric.quantities.items()}
    return {**of_samples, **bound()}


@functools.cache
def _shipped(conf: Path) -> list[str]:
    defaults = groups.content(conf / "train.yaml")["defaults"]
    return next((list(entry["metric"]) for entry in defaults if "metric" in entry), [])


@functools.cache
def _metrics(options: tuple[str, ...]) -> dict[str, Registered]:
    found = {name: groups.content_of("metric", name) for name in options}
    targets = {name: str(found[name]["_target_"]) for name in dict.fromkeys([*shipped(), *found])}
    return {
        name: Registered(_quantities(target), fact(target, "settings") or {}, bool(fact(target, "needs_reference")))
        for name, target in targets.items()
    }


@functools.cache
def _quantities(target: str) -> dict[str, Quantity]:
    stated: dict[str, dict[str, Any]] = fact(target, "quantities") or {}
    return {name: Quantity(**facts) for name, facts in stated.items()}
