"""`resume=`: which run goes on, under which configuration, and what may differ from its first start. Without torch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.config import trust
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.grammar import dotted, parse, shown, split_keys
from ddpm.config.groups import ALL_LOADED, group_names
from ddpm.config.initial import compose_run
from ddpm.config.roles import PRESETS, fixed_by_the_run
from ddpm.config.saved import completed, compose_saved, read_config
from ddpm.messages import say
from ddpm.runs import folders, records
from ddpm.training.monitor import Monitor


def compose_resumable(
    overrides: Sequence[str], config_of: Callable[[str], dict[str, Any]], *, only_looks: bool = False
) -> tuple[DictConfig, Path | None]:
    """The configuration, and what to go on from: a run folder or a checkpoint file in one, or None for a new run.

    Args:
        config_of: reads the configuration of a checkpoint, for the model of a new run that has `init=`.
        only_looks: the configuration alone is wanted: the run's folder is not locked, and nothing is said.

    Raises:
        RequestError: also where the configuration would change what the run means.
    """
    start = _begun(overrides)
    wishes, rest = split_keys(overrides, ("resume",))
    if start is None:
        return compose_run(rest, config_of), None
    folder = run_folder(start)
    base = saved_config(folder)
    config = compose_saved(base, _news(rest, base, repeated=wishes["resume"] == "auto"))
    if config.out and Path(config.out).absolute().resolve() != folder:
        raise RequestError(f"{folder} goes on in its own folder: leave out={config.out} away")
    changed = check(base, config, folder)
    config.out, config.resume = str(folder), None
    if only_looks:
        return config, start
    with request_errors():
        folders.lock(folder)
    if changed:
        say(f"changed since the run began: {', '.join(changed)}")
    return config, start


def goes_on(overrides: Sequence[str]) -> bool:
    """Whether the command line goes on with a run that has begun, whose settings are what they were."""
    return _begun(overrides) is not None


def _begun(overrides: Sequence[str]) -> Path | None:
    """The run folder, or the checkpoint in one, with which the command line goes on; None for a new run."""
    values = {override.key_or_group: override.value() for override in parse(overrides)}
    wish, out = values.get("resume"), values.get("out")
    if wish != "auto":
        return Path(str(wish)).absolute() if wish else None
    if not out:
        raise RequestError("resume=auto goes on with what out= holds: add out=FOLDER, the same every time")
    folder = Path(str(out)).absolute()
    return folder if (folder / "config.yaml").is_file() else None


def run_folder(path: Path) -> Path:
    """The run folder that `resume=` names, itself or by a checkpoint in it.

    Raises:
        RequestError: there is none, or something in it leads out of it.
    """
    if not path.exists():
        raise RequestError(f"resume={path} does not exist: give a run folder (runs/latest is the newest)")
    folder = (path if path.is_dir() else path.resolve().parent.parent).resolve()
    if (folder / records.PLAN).is_file():
        raise RequestError(f"resume={path} is a sweep: add -m to go on with it")
    if not (folder / "config.yaml").is_file():
        raise RequestError(f"resume={path} is not a run folder or a checkpoint in one: {folder} has no config.yaml")
    with request_errors():
        folders.check_inside(folder)
    return folder


def saved_config(folder: Path) -> dict[str, Any]:
    """A run's config.yaml, as far as it may be followed.

    Raises:
        RequestError: it is not a configuration.
    """
    with request_errors():
        return completed(trust.of_file(read_config(folder), folder))


def check(base: dict[str, Any], config: DictConfig, where: Path, step: int = 0) -> list[str]:
    """The settings that differ from the run's and may, each with both values.

    Raises:
        RequestError: one differs that may not, or the run is past max_steps.
    """
    if step > config.max_steps:
        raise RequestError(f"max_steps={config.max_steps}: {where} is at step {step} already")
    now = OmegaConf.to_container(config)
    allowed: list[str] = []
    refused: list[str] = []
    for key, old, new in differences(base, now):
        (refused if fixed_by_the_run(key) else allowed).append(f"{key}={shown(new)} (was {shown(old)})")
    if refused:
        raise RequestError(
            f"{', '.join(refused)}: that would be another run than {where}; leave it as it was, or start a new run"
        )
    if config.optimizer.get("anneal") and base.get("max_steps") != config.max_steps:
        raise RequestError(
            f"max_steps={config.max_steps} (was {base.get('max_steps')}): optimizer.anneal=true takes the learning "
            "rate to 0 at max_steps, so the run would be neither the shorter nor the longer one; start a new run"
        )
    return [line for line in allowed if not line.startswith(("out=", "resume=", "not_followed="))]


def why_finished(config: DictConfig, step: int, monitor: Monitor) -> str:
    """Why a run at this step has nothing left to train, and what would change that; "" where there is more to train."""
    if step == config.max_steps:
        return f"{step:,} steps; more with max_steps="
    if monitor.at_end(config.stop.patience):
        return f"{monitor.why(config.stop.patience)}; more with stop.patience="
    return ""


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, old value, new value) of the leaves that differ; of a group, once, where another option was chosen."""
    if prefix == "" and isinstance(old, dict) and isinstance(new, dict):
        before, after = (tree.get("choices") or {} for tree in (old, new))
        groups = {g for g in {*before, *after} - set(PRESETS) if before.get(g) != after.get(g)}
        yield from ((group, before.get(group), after.get(group)) for group in sorted(groups))
        old, new = ({k: v for k, v in tree.items() if k not in groups | {"choices"}} for tree in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield prefix.rstrip("."), old, new


def _news(overrides: Sequence[str], base: dict[str, Any], *, repeated: bool) -> list[str]:
    """The overrides without those that repeat what a run is made of: its options, and what it added or took away.

    Args:
        repeated: the command line is that of the run's first start, whose choices are taken in already. Else an option
            of a group that may change brings its own settings again.

    Raises:
        RequestError: one of them chooses another option of a group that is fixed by the run.
    """
    choices, known, parsed = base.get("choices") or {}, {*dotted(base)}, parse(overrides)
    last = {override.key_or_group: place for place, override in enumerate(parsed)}
    news, refused = [], []
    for place, (text, override) in enumerate(zip(overrides, parsed, strict=True)):
        key = override.key_or_group
        if key not in group_names():
            if not override.is_delete() or key in known:
                news.append(f"+{text}" if override.is_add() else text)  # the run has what its first command added
        elif key in ALL_LOADED or place < last[key]:  # every option is there already; a later word says otherwise
            continue
        elif fixed_by_the_run(key):
            if override.value() != choices.get(key):
                refused.append(f"{text} (was {shown(choices.get(key))})")
        elif not (repeated and base.get(key) and override.value() == choices.get(key)):
            news.append(text)
    if refused:
        raise RequestError(f"{', '.join(refused)}: a run keeps what it began with; start a new run")
    return news
