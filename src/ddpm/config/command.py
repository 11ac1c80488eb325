"""The process around a command: flags, signals, and the exit code that its end deserves.

Exit codes: 0 done; 1 it failed; 2 the request was wrong, said in one line before anything was written; 130 Ctrl-C;
143 SIGTERM or SIGUSR1.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf

from ddpm.config import groups
from ddpm.config.errors import RequestError, advice_on, is_of_the_disk, root_message
from ddpm.config.grammar import parse, quote_paths
from ddpm.config.recipes import proposes
from ddpm.messages import visible
from ddpm.processes import RunFailedError, StoppedError, is_rank_zero

# Hydra's settings of where a job writes, which nothing here reads.
FOLDERS_OF_HYDRA = ("hydra.run.", "hydra.sweep.", "hydra.output_subdir", "hydra.job.chdir")
COMPLETION = ("-sc", "--shell-completion")
INFORMATIONAL = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", *COMPLETION)


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
        # What the command line is wrong with, rank 0 says; a file or memory may be missing on another machine alone.
        of_one = isinstance(error.__cause__, OSError | MemoryError | RuntimeError)
        _say_error(f"{error}{advice_on(error.__cause__)}", of_one=of_one)
        code = error.code
    except RunFailedError as error:
        _say_error(error, of_one=isinstance(error.__cause__, OSError | ValueError))
        code = 1
    except StoppedError as stop:
        if is_rank_zero():
            print(stop, file=sys.stderr)
        code = stop.code if is_rank_zero() else 0  # a rank that fails makes Lightning's launcher kill the others
    except KeyboardInterrupt:
        if is_rank_zero():
            print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        if not _reader_has_gone():  # it was another pipe
            raise
        code = 128 + signal.SIGPIPE
    except OSError as error:
        if not is_of_the_disk(error) or "HYDRA_FULL_ERROR" in os.environ:
            raise
        _say_error(f"{root_message(error)}{advice_on(error)}", of_one=True)
        code = 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain at its end
    sys.exit(code)


def _say_error(error: Exception | str, *, of_one: bool) -> None:
    """Print one line on rank 0, and on others where the error may be of one process alone, which ends them all."""
    if is_rank_zero():
        print(visible(f"error: {error}"), file=sys.stderr)
    elif of_one:
        print(visible(f"error in another process than the first: {error}"), file=sys.stderr)


def _reader_has_gone() -> bool:
    """Whether nobody reads standard output any more: `| head` may have read enough."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, 0)
    except (AttributeError, OSError, ValueError):  # no such call here, or no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def with_own_conf(argv: Sequence[str]) -> list[str]:
    """The command line without `--config-dir=DIR`, whose folders are added to conf/.

    Raises:
        RequestError: there is no folder after the flag, or it holds no group.
    """
    rest, words = [], iter(argv)
    for word in words:
        flag, equals, folder = word.partition("=")
        if flag not in ("--config-dir", "-cd"):
            rest.append(word)
            continue
        folder = folder if equals else next(words, "")
        if not folder:
            raise RequestError(f"{flag} needs a folder: {flag}=DIR")
        groups.add_own(folder)
    return rest


def command_line(
    argv: Sequence[str],
    task: Callable[[list[str]], Any],
    sweep: Callable[[Sequence[str]], int],
    composed: Callable[[list[str]], DictConfig],
    config_name: str,
) -> int:
    """Do what a command line asks for: the task once, a sweep of it (`-m`), or Hydra's own `--help`, `--cfg`, `--info`.

    Args:
        composed: makes the configuration of the task under these overrides, for `--cfg job`.
        config_name: "train", or "evaluate", whose configuration is that of a checkpoint if `ckpt=` names one.
    """
    argv = quote_paths(argv)
    known = config_name == "train" or any(word.startswith("ckpt=") for word in argv)
    if known and (overrides := _printed(argv)) is not None:
        print(OmegaConf.to_yaml(composed(overrides)), end="")
        return 0
    if any(argument.split("=")[0] in INFORMATIONAL for argument in argv):
        return hydra_main(lambda _: None, [a for a in argv if not a.startswith("ckpt=")], config_name)
    return _one_or_several(argv, task, sweep)


def _printed(argv: Sequence[str]) -> list[str] | None:
    """The overrides of `--cfg job`; None if that is not what is asked, or if Hydra alone can answer.

    Hydra composes files and words, and does not know what becomes of them: which settings of a recipe go, for one.
    """
    flags = [argument for argument in argv if argument.startswith("-") or argument == "job"]
    overrides = [argument for argument in argv if argument not in flags]
    asked = flags in (["--cfg", "job"], ["-c", "job"], ["--cfg=job"])
    return overrides if asked and not proposes(overrides) else None


def _one_or_several(
    argv: Sequence[str], task: Callable[[list[str]], Any], sweep: Callable[[Sequence[str]], int]
) -> int:
    flags = [argument for argument in argv if argument.startswith("-")]
    overrides = [argument for argument in argv if not argument.startswith("-")]
    if unknown := [flag for flag in flags if flag not in ("-m", "--multirun")]:
        raise RequestError(f"unknown flag {unknown[0]}; settings are written KEY=VALUE, and --help lists them")
    said = parse(overrides)
    if ignored := [o.key_or_group for o in said if o.key_or_group.startswith(FOLDERS_OF_HYDRA)]:
        raise RequestError(
            f"{ignored[0]} has no effect here: out=FOLDER names a run's folder; a sweep makes its own in runs/sweeps"
        )
    if flags:
        return sweep(overrides)
    if swept := [o for o in said if o.is_sweep_override()]:
        raise RequestError(f"{swept[0].input_line} names several values: add -m to sweep over them")
    task(overrides)
    return 0


def complete(argv: Sequence[str], commands: Sequence[str]) -> int:
    """Answer the shell, which asks what can follow the words in COMP_LINE: a command, then what Hydra says of it."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split(maxsplit=2)
    typed = words[1] if len(words) > 2 or (len(words) == 2 and line[-1].isspace()) else None
    if typed is None:
        print(" ".join(commands))
    if typed not in ("train", "evaluate"):
        return 0
    os.environ["COMP_LINE"] = rest = line.replace(f"{typed} ", "", 1)
    os.environ["COMP_POINT"] = str(len(rest))
    return hydra_main(lambda _: None, argv, typed)


def hydra_main(task: Callable[[DictConfig], Any], argv: Sequence[str], config_name: str = "train") -> int:
    """Hydra's own command line over conf/."""
    sys.argv = [sys.argv[0], *argv]
    groups.show_to_hydra()
    hydra.main(config_path=str(groups.CONF), config_name=config_name, version_base="1.3")(task)()
    return 0
