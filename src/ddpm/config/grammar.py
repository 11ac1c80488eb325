"""The words of a command line: Hydra's grammar, and paths that it must leave alone."""

import difflib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ddpm.config.errors import RequestError, first_line

PATH_KEYS = (
    "ckpt", "init", "resume", "out", "to", "push", "data.path", "data.root", "data.condition_path", "features.weights",
    "guidance.weak", "figure.inpaint.mask",
)  # fmt: skip


# What these are called in other programs.
ELSEWHERE = {
    "model": ("network",),
    "dataset": ("data",),
    "epochs": ("max_steps",),
    "max_epochs": ("max_steps",),
    "num_epochs": ("max_steps",),
    "iterations": ("max_steps",),
    "gpus": ("trainer.devices",),
    "learning_rate": ("optimizer.lr",),
    "output_dir": ("out",),
    "run_dir": ("out",),
    "save_dir": ("out",),
    "log_dir": ("out",),
    "checkpoint": ("ckpt", "init", "resume"),
    "ckpt_path": ("ckpt", "init", "resume"),
}

# Values with letters of other languages, parentheses, or =, which Hydra's grammar reads in quotes only.
FOREIGN = re.compile(r"""([^=\s]+=)([^\[\]{}'",$]*(?:[^\x00-\x7f]|[()=])[^\[\]{}'",$]*)""")


def quote_paths(argv: Sequence[str]) -> list[str]:
    """Quote the values of path keys, so that Hydra's grammar passes any path through unread; `~` is expanded.

    Other values are quoted where they hold characters that the grammar does not know.
    """
    keys = "|".join(map(re.escape, PATH_KEYS))

    def quoted(argument: str) -> str:
        match = re.fullmatch(rf"(\+{{0,2}}(?:{keys})=)(.*)", argument, re.DOTALL)
        if match is None:
            foreign = FOREIGN.fullmatch(argument)
            return f"{foreign[1]}{quote(foreign[2])}" if foreign and not _can_be_read(argument) else argument
        if match[2] in ("", "null", "auto"):
            return argument
        return f"{match[1]}{quote(os.path.expanduser(match[2]))}"

    return [quoted(argument) for argument in argv]


def quote(text: str) -> str:
    """The text as a value in Hydra's grammar, neither interpreted nor interpolated."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{text}'"


def shown(value: Any) -> str:
    """A value as it is typed: null, true, false, and everything else as Python shows it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Take back the quotes of `quote_paths`, for a command line that puts them itself."""

    def typed(text: str, override: Any) -> str:
        if override.key_or_group not in PATH_KEYS or not isinstance(override.value(), str):
            return text
        value = re.sub(r"(\\+)\$\{", lambda m: m[1][: len(m[1]) // 2] + "${", override.value())
        return f"{text.partition('=')[0]}={value}"

    return [typed(text, override) for text, override in zip(overrides, parse(overrides), strict=True)]


def path_of(key: str, overrides: Sequence[str]) -> str:
    """The value of a path key that the request must have.

    Raises:
        RequestError: it has none.
    """
    values = [override.value() for override in parse(overrides) if override.key_or_group == key]
    if not values or not values[-1]:
        raise RequestError(
            f"{key}= is missing: {key}=PATH, a run folder (runs/latest is the newest) or a checkpoint file"
        )
    return str(values[-1])


def split_keys(overrides: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of settings that are no part of a configuration, if not null, and the other overrides."""
    parsed = list(zip(overrides, parse(overrides), strict=True))
    said = {each.key_or_group: each.value() for _, each in parsed if each.key_or_group in keys}
    values = {key: str(value) for key, value in said.items() if value is not None}
    return values, [override for override, each in parsed if each.key_or_group not in keys]


def parse(overrides: Sequence[str]) -> list[Any]:
    """Hydra's overrides, parsed.

    Raises:
        RequestError: an override that is not in Hydra's grammar.
    """
    return [_parsed(override) for override in overrides]


def _can_be_read(override: str) -> bool:
    try:
        return bool(_parsed(override))
    except RequestError:
        return False


@functools.lru_cache(maxsize=4096)  # a command asks for the same words a dozen times
def _parsed(override: str) -> Any:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        hint = "" if "=" in override else " (settings are written KEY=VALUE)"
        raise RequestError(f"cannot read {override!r}{hint}: {first_line(error)}") from None
    if not parsed.key_or_group:
        raise RequestError(f"cannot read {override!r}: settings are written KEY=VALUE")
    return parsed


def nearest(name: str, candidates: Sequence[str]) -> str:
    """What to ask the user: which of the candidates was meant; "" where nothing is near.

    First comes what other programs call by this name, then what has the same last word, then what is spelled alike.
    """
    leaf = name.rpartition(".")[2]
    near = (
        [candidate for candidate in ELSEWHERE.get(name, ()) if candidate in candidates]
        or [candidate for candidate in candidates if candidate.rpartition(".")[2] == leaf]
        or difflib.get_close_matches(name, candidates, 3)
    )
    if not near:
        leaves = {candidate.rpartition(".")[2]: candidate for candidate in candidates}
        near = [leaves[alike] for alike in difflib.get_close_matches(leaf, list(leaves), 3)]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted key of every section and setting of a configuration."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
