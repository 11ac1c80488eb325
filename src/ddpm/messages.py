"""What a run says on the terminal; only rank 0 speaks."""

import sys
from pathlib import Path
from typing import Any

from ddpm.processes import is_rank_zero

LONGEST = 1000  # characters of a text of somebody else's that is shown


def say(*lines: str) -> None:
    """Print on rank 0."""
    if is_rank_zero():
        print(visible("\n".join(lines)), flush=True)


def warn(*lines: str) -> None:
    """Print a warning on rank 0, to stderr."""
    if is_rank_zero():
        print(visible("warning: " + "\n".join(lines)), file=sys.stderr, flush=True)


def typed(command: str) -> str:
    """What a user types for a command: `python train.py` in a clone, `ddpm train` where the package is installed."""
    script = Path(__file__).parents[2] / f"{command}.py"
    return f"python {script.name}" if script.is_file() else f"ddpm {command}"


def visible(text: str) -> str:
    """The text with its control characters made visible, line ends aside: part of it may be a stranger's."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def printable(value: Any) -> str:
    """Make one printable line of a value that is not ours: control characters become visible, spaces single.

    A file's text could otherwise move a terminal's cursor or hide what follows.
    """
    line = visible(" ".join(str(value).split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
