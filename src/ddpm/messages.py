"""What a run says on the terminal; only rank 0 speaks."""

import shlex
import sys
from pathlib import Path
from typing import Any, TextIO

from ddpm.processes import is_rank_zero

LONGEST = 1000  # characters of a text of somebody else's that is shown


def say(*lines: str, to: TextIO | None = None) -> None:
    """Print on rank 0, by default to stdout."""
    if is_rank_zero():
        print(visible("\n".join(lines)), file=to, flush=True)


def warn(*lines: str) -> None:
    """Print a warning on rank 0, to stderr."""
    say("warning: " + "\n".join(lines), to=sys.stderr)


def typed(command: str, *words: str) -> str:
    """Write what a user types in a shell for a command with these words.

    It is `python train.py` in a clone of this repository or where its script was called by a path, else `ddpm train`.
    """
    script = Path(__file__).parents[2] / f"{command}.py"
    for here in (Path(sys.argv[0]).parent / script.name, Path(script.name)):
        if here.is_file() and script.is_file() and here.samefile(script):
            return shlex.join(["python", str(here), *words])
    return shlex.join(["ddpm", command, *words])


def visible(text: str) -> str:
    """The text with its control characters made visible, line ends aside: part of it may be a stranger's."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def printable(value: Any) -> str:
    """Make one printable line of a value that is not ours: control characters become visible, spaces single.

    A file's text could otherwise move a terminal's cursor or hide what follows.
    """
    line = visible(" ".join(str(value).split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
