"""What a run says on the terminal; only rank 0 speaks."""

from ddpm.processes import is_rank_zero


def say(*lines: str) -> None:
    """Print on rank 0."""
    if is_rank_zero():
        print("\n".join(lines), flush=True)
