"""What a run says on the terminal; only rank 0 speaks."""

import sys

from ddpm.processes import is_rank_zero


def say(*lines: str) -> None:
    """Print on rank 0."""
    if is_rank_zero():
        print("\n".join(lines), flush=True)


def warn(*lines: str) -> None:
    """Print a warning on rank 0, to stderr."""
    if is_rank_zero():
        print("warning: " + "\n".join(lines), file=sys.stderr, flush=True)
