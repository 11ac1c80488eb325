"""From argv to a checked configuration; one-line messages and exit codes. Never imports torch.

Exit codes: 0 done; 1 it failed; 2 the request was wrong, said in one line before anything was written; 130 Ctrl-C;
143 SIGTERM or SIGUSR1.
"""

import contextlib
import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm import runs, validity
from ddpm.runs import CONF

PATH_KEYS = ("ckpt", "resume", "out", "to", "data.path", "features.weights")
EVALUATION_GROUPS = ("sampler", "features", "trainer", "logger")
EVALUATION_KEYS = (
    *("ckpt", "out", "keep", "figures", "figure", "debug", "data.split", "data.path", "evaluation"),
    *EVALUATION_GROUPS,
)
SEVERAL = ("logger",)  # groups that take a list of options, too
MODEL_KEYS = ("recipe", "data", "network", "schedule", "prediction", "variance")  # what a foreign file may leave open
INFORMATIONAL = (
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "-c",
    "--cfg",
    "-i",
    "--info",
    "-sc",
    "--shell-completion",
)


class RequestError(Exception):
    """What was asked for cannot be done: one readable line, exit code 2."""


class RefusedError(RequestError):
    """Every word of the request is right and their combination cannot work: a sweep keeps it as a refused cell."""


def quote_paths(argv: Sequence[str]) -> list[str]:
    """Quote the values of path keys, so that Hydra's grammar passes any path through unread; `~` is expanded."""
    keys = "|".join(map(re.escape, PATH_KEYS))

    def quoted(argument: str) -> str:
        match = re.fullmatch(rf"(\+{{0,2}}(?:{keys})=)(.*)", argument, re.DOTALL)
        if match is None or match[2] in ("", "null", "auto"):
            return argument
        return f"{match[1]}{quote(os.path.expanduser(match[2]))}"

    return [quoted(argument) for argument in argv]


def quote(text: str) -> str:
    """The text as a value in Hydra's grammar, neither interpreted nor interpolated."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text)
    return f"'{text}'"


def as_typed(overrides: Sequence[str]) -> list[str]:
    """What `quote_paths` made of these, for another command line, which quotes paths again."""

    def typed(text: str, override: Any) -> str:
        if override.key_or_group not in PATH_KEYS or not isinstance(override.value(), str):
            return text
        value = re.sub(r"(\\+)\$\{", lambda m: m[1][: len(m[1]) // 2] + "${", override.value())
        return f"{text.partition('=')[0]}={value}"

    return [typed(text, override) for text, override in zip(overrides, parse(overrides), strict=True)]


def compose(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """The job's configuration, resolved and checked; `choices` records which option of each group it is made of.

    Raises:
        RequestError: an unknown key, group or option (with the nearest names), a bad value, a refused combination.
    """
    with hydra_context(), _explained(overrides, config_name):
        composed = hydra.compose(config_name, overrides=list(overrides), return_hydra_config=True)
        choices = dict(composed.get("choices", {}))
        choices |= {
            group: option for group, option in composed.hydra.runtime.choices.items() if "/" not in group and option
        }
        given = {override.key_or_group: override.value() for override in parse(overrides)}
        choices |= {group: given[group] for group in SEVERAL if isinstance(given.get(group), list)}
        config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        OmegaConf.set_struct(config, False)
        config.choices = choices
        OmegaConf.resolve(config)
        if any(override.startswith("+") for override in overrides):
            _refuse_unknown(config, known_keys(config_name, overrides))
        if problem := validity.wrong_value(config):
            raise RequestError(problem)
        if reason := validity.refuse(config):
            raise RefusedError(reason)
    return config


def compose_evaluation(base: dict[str, Any], overrides: Sequence[str]) -> DictConfig:
    """A checkpoint's configuration under overrides that leave the model what it is.

    A chosen group replaces the checkpoint's; `debug=smoke` takes only what that file says of the evaluation. Overrides
    also complete what another codebase's file says of its model.

    Raises:
        RequestError: an override that would change the model, or one that `compose` would refuse.
    """
    if "stated" in base:
        base, overrides = compose_foreign(base, overrides)
    parsed = parse(overrides)
    for override in parsed:
        key = override.key_or_group
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in EVALUATION_KEYS):
            raise RequestError(
                f"{key} is the checkpoint's and cannot change after training; "
                f"evaluate.py takes {', '.join(EVALUATION_KEYS)}"
            )
    if "debug=smoke" in overrides:
        smoke = OmegaConf.load(CONF / "debug" / "smoke.yaml")
        base = {
            **base,
            "evaluation": OmegaConf.to_container(OmegaConf.merge(_section(base, "evaluation"), smoke.evaluation)),
        }
        overrides = [override for override in overrides if override != "debug=smoke"]
    own: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONF / "evaluate.yaml"))  # type: ignore[assignment]
    base = {**base, "ckpt": None, **{key: own[key] for key in ("keep", "figures", "figure")}}
    return compose_saved(base, overrides, EVALUATION_GROUPS)


def compose_saved(base: dict[str, Any], overrides: Sequence[str], open_groups: Sequence[str]) -> DictConfig:
    """A saved configuration under overrides; an option chosen from one of `open_groups` replaces the saved section.

    `base` may be a stranger's.

    Raises:
        RequestError: it lacks a section or interpolates, or as `compose`.
    """
    for section in ("choices", "data", "network", "schedule", "optimizer", "ema", "every", "evaluation", "trainer"):
        _section(base, section)
    chosen = {override.key_or_group for override in parse(overrides)} & set(groups())
    node = {str(key): value for key, value in OmegaConf.load(CONF / "train.yaml").items()}  # what it is older than
    node |= {key: _without_interpolation(value) for key, value in base.items()}
    node["trainer"] = {**OmegaConf.load(CONF / "trainer" / "auto.yaml"), **node["trainer"]}
    for key in (*chosen, "hydra", "defaults"):
        node.pop(key, None)
    node |= {"out": None, "resume": None, "defaults": ["_self_", *({group: None} for group in open_groups)]}
    with _explained(overrides, "train"):
        ConfigStore.instance().store(name="saved", node=node)
    config = compose(overrides, "saved")
    keep_precision(config, base)
    return config


def keep_precision(config: DictConfig, base: dict[str, Any]) -> None:
    """What `trainer.precision=auto` once came to is the run's, whatever this machine would make of it."""
    if config.trainer.precision == "auto":
        config.trainer.precision = base["trainer"].get("precision", "auto")


def compose_foreign(base: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The configuration of another codebase's model, and the overrides that are for its evaluation.

    It is the recipe's, under what the file states and, where it is silent, what it is assumed or the user says to be.

    Raises:
        RequestError: an override of what the file states, or no recipe.
    """
    layout, stated, assumed = base["foreign"], base["stated"], base["assumed"]
    facts = {parsed.key_or_group: override.lstrip("+") for override, parsed in zip(stated, parse(stated), strict=True)}
    given, rest = [], []
    for override, parsed in zip(overrides, parse(overrides), strict=True):
        key = parsed.key_or_group
        if key in EVALUATION_KEYS or key.partition(".")[0] not in MODEL_KEYS:
            rest.append(override)
            continue
        if against := [fact for fact in facts if _within(fact, key) or _within(key, fact)]:
            raise RequestError(f"{key} cannot change: the file ({layout}) states {facts[max(against, key=len)]}")
        given.append(override)
    open_to = {override.key_or_group for override in parse(given)}
    said = [override for override in assumed if parse([override])[0].key_or_group not in open_to] + stated + given
    if "recipe" not in {override.key_or_group for override in parse(said)}:
        raise RequestError(
            f"the file ({layout}) does not say whose images it makes: add recipe=NAME, one of "
            f"{', '.join(options('recipe'))}"
        )
    whole = [*said, *(override for override in rest if override != "debug=smoke")]
    try:
        config = compose(whole, "evaluate")
    except RefusedError:  # a learned variance does not go with the recipe's objective, which only training needs
        config = compose([*whole, "objective=vlb"], "evaluate")
    runs.say(f"read as {layout}: {' '.join(override.lstrip('+') for override in said)}")
    composed: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    return {**composed, "foreign": layout}, rest


def known_keys(config_name: str, overrides: Sequence[str]) -> set[str]:
    """Every dotted key of the configuration that the overrides' choice of groups makes."""
    chosen = [override for override in overrides if override.partition("=")[0] in groups()]
    with hydra_context():
        config = hydra.compose(config_name, overrides=chosen)
    return set(_dotted(OmegaConf.to_container(config)))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


@contextlib.contextmanager
def request() -> Iterator[None]:
    """Building what was asked for: what cannot be built, found, imported or held in memory is the request's fault."""
    try:
        yield
    except (ValueError, OSError, ImportError, TypeError, RuntimeError, MemoryError, OmegaConfBaseException) as error:
        raise RequestError(_root_message(error)) from error


def guarded(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with the code that its end deserves; no traceback for what a user can mend."""
    for signum in (signal.SIGTERM, signal.SIGUSR1):  # while nothing is trained, there is nothing to save
        signal.signal(signum, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts in the background
    try:
        code = main()
    except RequestError as error:
        if "HYDRA_FULL_ERROR" in os.environ:
            raise
        if runs.is_rank_zero():
            print(f"error: {error}", file=sys.stderr)
        code = 2
    except runs.RunFailedError as error:
        if runs.is_rank_zero():
            print(f"error: {error}", file=sys.stderr)
        code = 1
    except runs.StoppedError as stop:
        if runs.is_rank_zero():
            print(stop, file=sys.stderr)
        code = stop.code if runs.is_rank_zero() else 0  # a rank that fails makes Lightning's launcher kill the others
    except KeyboardInterrupt:
        if runs.is_rank_zero():
            print("interrupted", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code)


def run(task: Callable[[list[str]], None], sweep: Callable[[Sequence[str]], int]) -> NoReturn:
    """The command line of train.py: one run, a sweep (`-m`), or Hydra's own `--help`, `--cfg`, `--info`."""
    argv = quote_paths(sys.argv[1:])

    def main() -> int:
        if any(argument.split("=")[0] in INFORMATIONAL for argument in argv):
            return hydra_main(lambda _: None, argv)
        flags = [argument for argument in argv if argument.startswith("-")]
        overrides = [argument for argument in argv if not argument.startswith("-")]
        if unknown := [flag for flag in flags if flag not in ("-m", "--multirun")]:
            raise RequestError(f"unknown flag {unknown[0]}; settings are written KEY=VALUE, and --help lists them")
        if flags:
            return sweep(overrides)
        if swept := [o for o in parse(overrides) if o.is_sweep_override()]:
            raise RequestError(f"{swept[0].input_line} names several values: add -m to sweep over them")
        task(overrides)
        return 0

    guarded(main)


def run_evaluation(task: Callable[[list[str]], None]) -> NoReturn:
    """The command line of evaluate.py, which starts from a checkpoint's configuration."""
    argv = quote_paths(sys.argv[1:])

    def main() -> int:
        if any(argument.split("=")[0] in INFORMATIONAL for argument in argv):
            return hydra_main(lambda _: None, [a for a in argv if not a.startswith("ckpt=")], "evaluate")
        if flags := [argument for argument in argv if argument.startswith("-")]:
            raise RequestError(f"unknown flag {flags[0]}: evaluate.py takes ckpt=PATH and KEY=VALUE settings")
        if swept := [o for o in parse(argv) if o.is_sweep_override()]:
            raise RequestError(f"{swept[0].input_line} names several values: evaluate.py takes one")
        task(argv)
        return 0

    guarded(main)


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
    """The values of settings that are no part of a configuration, and the other overrides."""
    parsed = list(zip(overrides, parse(overrides), strict=True))
    values = {each.key_or_group: str(each.value()) for _, each in parsed if each.key_or_group in keys}
    return values, [override for override, each in parsed if each.key_or_group not in keys]


def hydra_main(task: Callable[[DictConfig], Any], argv: Sequence[str], config_name: str = "train") -> int:
    """Hydra's own command line over conf/."""
    sys.argv = [sys.argv[0], *argv]
    hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(task)()
    return 0


def parse(overrides: Sequence[str]) -> list[Any]:
    """Hydra's overrides, parsed.

    Raises:
        RequestError: an override that is not in Hydra's grammar.
    """
    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        try:
            parsed.append(parser.parse_override(override))
        except HydraException as error:
            hint = "" if "=" in override else " (settings are written KEY=VALUE)"
            raise RequestError(f"cannot read {override!r}{hint}: {_first_line(error)}") from None
        if not parsed[-1].key_or_group:
            raise RequestError(f"cannot read {override!r}: settings are written KEY=VALUE")
    return parsed


@contextlib.contextmanager
def hydra_context() -> Iterator[None]:
    """Hydra, reading conf/."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@contextlib.contextmanager
def _explained(overrides: Sequence[str], config_name: str) -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into one line that names what was wrong and what is near it."""
    parsed = parse(overrides)
    for override in parsed:
        if override.is_sweep_override():
            continue
        if (group := override.key_or_group) in groups() and not override.is_delete():
            _require_options(group, override.value())
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        known = known_keys(config_name, overrides)
        for override in parsed:
            key = override.key_or_group
            added = override.is_add() or override.is_force_add()
            if key not in groups() and not added and not key.startswith("hydra") and key not in known:
                candidates = sorted({*known, *groups()})
                raise RequestError(f"there is no setting {key!r}{nearest(key, candidates)}") from error
        raise RequestError(_root_message(error)) from error


def _require_options(group: str, value: Any) -> None:
    if isinstance(value, list) and group not in SEVERAL:
        raise RequestError(f"{group} takes one option, not a list: {', '.join(options(group))}")
    for option in value if isinstance(value, list) and value else [value]:
        if option not in options(group):
            near = nearest(str(option), options(group))
            shown = "null" if option is None else option
            raise RequestError(f"{group}={shown} does not exist{near}; options: {', '.join(options(group))}")


def _refuse_unknown(config: DictConfig, known: set[str]) -> None:
    """`+key=value` appends; a plain section (one without a `_target_`) takes nothing that nobody reads."""
    for key in _dotted(OmegaConf.to_container(config)):
        section = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        if key not in known and "_target_" not in section and key.partition(".")[0] not in ("choices", "logger"):
            raise RequestError(f"there is no setting {key!r}{nearest(key, sorted(known))}")


def _within(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.")


def _without_interpolation(tree: Any) -> Any:
    """The same values, if none would be looked up here: in the environment, say. Ours are resolved when saved."""
    if isinstance(tree, dict):
        return {str(key): _without_interpolation(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_interpolation(value) for value in tree]
    if isinstance(tree, str) and "${" in tree:
        raise RequestError(f"the saved configuration is refused: {tree!r} is an interpolation, and ours hold none")
    return tree


def _section(base: dict[str, Any], name: str) -> dict[str, Any]:
    section = base.get(name)
    if not isinstance(section, dict):
        raise RequestError(f"the saved configuration has no section {name!r}: it is not one of this framework's")
    return section


def _dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def nearest(name: str, candidates: Sequence[str]) -> str:
    leaves = {candidate.rpartition(".")[2]: candidate for candidate in candidates}
    near = difflib.get_close_matches(name, candidates, 3) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], list(leaves), 3)
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _root_message(error: BaseException) -> str:
    """The message of the first cause, on one line."""
    while error.__cause__ is not None and isinstance(error, (HydraException, OmegaConfBaseException)):
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
