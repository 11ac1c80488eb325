"""What a configuration from a file may decide: the one place that says so.

A file describes a model, its data, and how its numbers were measured. Where to read, write, log and compute, and every
consent, are the user's to say: on the command line, in conf/, or in a run of the user's own (`ddpm.config.origin`).
"""

import re
from typing import Any

from ddpm.config import origin
from ddpm.config.compose import defaults_of
from ddpm.config.moved import translated
from ddpm.config.roles import is_user_only
from ddpm.messages import printable

NOT_FOLLOWED = "not_followed"  # the key of a configuration from elsewhere that holds a warning
OF_CONVERTERS = ("stated", "assumed")  # what a converter says of another codebase's file; no file can say it itself
MAX_VALUES = 10_000  # values in a configuration; ours have about 150
DEEPEST = 20  # levels of a configuration; ours have 5
OPTION = re.compile(r"[\w.+-]+")  # a name of a group or of one of its options


def of_file(saved: dict[str, Any], source: Any) -> dict[str, Any]:
    """A configuration from a file as far as it may be followed, with conf/'s values for what it may not decide.

    Args:
        source: the file, for the warning under `NOT_FOLLOWED` that names what was not followed, to be given once the
            request is known to be right.

    Raises:
        ValueError: it is larger or deeper than any configuration, or holds something else than plain values.
    """
    check_size(saved)
    own = origin.is_own(saved)
    saved = {
        str(key): value for key, value in saved.items() if key not in (origin.SIGNATURE, NOT_FOLLOWED, *OF_CONVERTERS)
    }
    saved = translated(saved)
    if own:
        return saved
    _check_choices(saved)
    followed = with_defaults(saved)
    left_out = [f"{key}={value}" for key, value in _differing(saved, followed)]
    if left_out:
        followed[NOT_FOLLOWED] = (
            f"{source} was not written by you, or has been changed: what it says of where to read, write, log and "
            f"compute is not followed ({', '.join(left_out[:4])}{', ...' if len(left_out) > 4 else ''}); "
            "say on the command line what you want of it"
        )
    return followed


def _check_choices(saved: dict[str, Any]) -> None:
    """Refuse a choice that is no name: messages and model cards say what a model is made of.

    Raises:
        ValueError: there is one.
    """
    choices = saved.get("choices")
    for group, option in choices.items() if isinstance(choices, dict) else ():
        for name in (group, *(option if isinstance(option, list) else [option])):
            if not (name is None or (isinstance(name, str) and OPTION.fullmatch(name))):
                raise ValueError(f"the saved configuration says {printable(f'{group}={option}')}, which is no option")


def with_defaults(saved: dict[str, Any]) -> dict[str, Any]:
    """The configuration with conf/'s value, or none, in the place of every one that says where or consents."""
    choices = saved.get("choices")
    known = defaults_of(choices if isinstance(choices, dict) else {})
    loggers = saved.get("logger")
    kept = _merged(saved, known, "")
    if isinstance(loggers, dict):  # which loggers, but none of their settings
        kept["logger"] = {name: known["logger"][name] for name in loggers if name in known["logger"]}
    return kept


def check_size(tree: Any) -> None:
    """Refuse what is no tree of plain values of a configuration's size; a shared list may unfold to any size.

    Raises:
        ValueError: it is none.
    """
    count, stack = 0, [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > MAX_VALUES or depth > DEEPEST:
            raise ValueError(f"the saved configuration has more than {MAX_VALUES:,} values or {DEEPEST} levels")
        if isinstance(node, dict):
            stack += [(value, depth + 1) for pair in node.items() for value in pair]
        elif isinstance(node, list | tuple):
            stack += [(value, depth + 1) for value in node]
        elif not (node is None or isinstance(node, str | bool | int | float)):
            raise ValueError(f"the saved configuration holds a {type(node).__name__}, which none of ours does")
        elif isinstance(node, str) and len(node) > MAX_VALUES:
            raise ValueError(f"the saved configuration holds a text of more than {MAX_VALUES:,} characters")


def _merged(saved: dict[str, Any], known: dict[str, Any], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in saved.items():
        name = f"{prefix}{key}"
        default = known.get(key)
        if isinstance(value, dict) and (isinstance(default, dict) or not is_user_only(name)):
            kept[key] = _merged(value, default if isinstance(default, dict) else {}, f"{name}.")
        elif not is_user_only(name):
            kept[key] = value
        elif key in known:
            kept[key] = default
    return kept


def _differing(saved: Any, followed: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves that were not followed."""
    if isinstance(saved, dict) and isinstance(followed, dict):
        return [
            found for key, value in saved.items() for found in _differing(value, followed.get(key), f"{prefix}{key}.")
        ]
    same = saved == followed or (saved is None and not followed)
    return [] if same else [(prefix.rstrip("."), saved)]
