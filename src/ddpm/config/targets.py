"""Which classes and functions a configuration may name: those that conf/ names, since it may come from a file."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpm.config import groups
from ddpm.config.errors import RequestError


def check_targets(tree: Any) -> None:
    """Refuse a configuration in which a `_target_` is none of conf/'s: building it would call whatever it names.

    Raises:
        RequestError: there is one.
    """
    for target in targets_in(tree):
        if target not in allowed_targets():
            raise RequestError(
                f"the configuration names {target!r}, which is not one of conf/'s targets, of an installed plugin's "
                "or of a --config-dir's: is one of these missing?"
            )


def targets_in(tree: Any) -> Iterator[str]:
    """Every `_target_` of a tree of dicts and lists."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield str(tree["_target_"])
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from targets_in(value)


def allowed_targets() -> frozenset[str]:
    """Every `_target_` under conf/, and in what a user added to it."""
    return _targets_under(tuple(groups.roots().values()))


@functools.cache
def _targets_under(roots: tuple[Path, ...]) -> frozenset[str]:
    trees = (groups.content(file) for root in roots for file in root.rglob("*.yaml"))
    return frozenset(target for tree in trees for target in targets_in(tree))


def target_of(group: str, option: str) -> str:
    """The `_target_` of an option, its own or that of the option on which it builds; "" for one that has none."""
    content = groups.content_of(group, option)
    if "_target_" in content:
        return str(content["_target_"])
    bases = (base for base in content.get("defaults", []) if isinstance(base, str) and base != "_self_")
    return next((found for base in bases if (found := target_of(group, base))), "")
