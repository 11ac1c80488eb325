"""The metrics of results.json as tables show them."""

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Quantity:
    """A metric: digits after the point, which part of it is its own error, which way is better."""

    title: str
    digits: int
    best: Callable[..., float]
    error: str | None = None


QUANTITIES = {
    "inception_score": Quantity("IS", 3, max, "std"),
    "fid": Quantity("FID", 3, min),
    "kid": Quantity("KID", 5, min, "std"),
    "precision": Quantity("precision", 3, max),
    "recall": Quantity("recall", 3, max),
    "bits_per_dim": Quantity("bits/dim", 4, min, "stderr"),
    "bound_nats": Quantity("bound (nats)", 4, min, "stderr"),
}
SPLITS = ("train", "test")


def known() -> list[str]:
    """Every name that a metric may have, in the order of tables."""
    return [name for base in QUANTITIES for name in (base, *(f"{base}_{split}" for split in SPLITS))]


def of(name: str) -> Quantity | None:
    """What `fid` or `fid_test` is; None for what no table shows."""
    base, _, split = name.rpartition("_")
    if split in SPLITS and base in QUANTITIES:
        return replace(QUANTITIES[base], title=f"{QUANTITIES[base].title}, {split}")
    return QUANTITIES.get(name)
