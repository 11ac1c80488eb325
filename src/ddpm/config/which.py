"""`which=best`: of the run folder that `ckpt=`, `init=` or `resume=` names, the best checkpoint instead of the last."""

from collections.abc import Sequence
from pathlib import Path

from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse, quote, split_keys

BEST = "best.ckpt"
NAMING = ("ckpt", "init", "resume")  # the keys that name a run folder
CHOICES = ("last", "best")


def with_chosen(overrides: Sequence[str]) -> list[str]:
    """The overrides without `which=`, the checkpoint that it chooses in the place of the run folder.

    Raises:
        RequestError: there is no such choice, no run folder, or no such checkpoint in it.
    """
    own, rest = split_keys(overrides, ("which",))
    if not own:
        return list(overrides)
    which = own["which"]
    if which not in CHOICES:
        raise RequestError(f"which={which} must be {' or '.join(CHOICES)}")
    named = [(k, override) for k, override in enumerate(parse(rest)) if override.key_or_group in NAMING]
    if not named:
        raise RequestError(f"which={which} is of the run folder that {', '.join(f'{key}=' for key in NAMING)} names")
    if which == "last":
        return rest
    for k, override in named:
        rest[k] = f"{override.key_or_group}={quote(str(_best(override.key_or_group, str(override.value()))))}"
    return rest


def _best(key: str, path: str) -> Path:
    if key == "resume" and path == "auto":
        raise RequestError("resume=auto goes on from the last checkpoint: leave which=best away, or name the folder")
    folder, file = Path(path), Path(path) / "checkpoints" / BEST
    if not (folder / "checkpoints").is_dir():
        raise RequestError(f"which=best is of a run folder, and {key}={path} is none: leave which= away")
    if not file.is_file():
        raise RequestError(
            f"{folder} has no checkpoints/{BEST}, which a run keeps from its first validation on (every.validation)"
        )
    return file
