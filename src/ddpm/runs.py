"""Where things are. A run folder, `runs/<name>/<when>/`, is made by rank 0 after every check and never overwritten."""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

ROOT = Path("runs")
UNFINISHED = ".unfinished"  # inside an evaluation's folder: what it has done so far
CONF = Path(__file__).parents[2] / "conf"
STARTED_BY = "DDPM_STARTED_BY"  # in the environment of a sweep's run: the process that watches it
LARGEST = 1 << 20  # bytes of a config.yaml; ours have 2 kB
PATIENCE = 10.0  # seconds for a killed predecessor to leave the folder

_held: list[FileLock] = []  # for as long as this process lives


class RunFailedError(Exception):
    """A run that began cannot go on: one readable line, exit code 1."""


class StoppedError(Exception):
    """A signal ended the run, which is saved: one readable line, exit code 130 (Ctrl-C) or 143."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.code = 128 + (signum if signum == signal.SIGINT else signal.SIGTERM)


def is_rank_zero() -> bool:
    """Whether this process speaks for the job, from the launcher's environment; before any process group exists."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0) == 0


def end_with_launcher() -> None:
    """Let a rank, or a sweep's run, end with the process that started it; the run saves first.

    Left alone, the rank would work on or wait for half an hour, and the run stand in the way of resuming the sweep.
    """
    launcher = int(os.environ.get(STARTED_BY, "0")) if is_rank_zero() else os.getppid()
    if not launcher:
        return

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        if is_rank_zero():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with contextlib.suppress(OSError):  # what it printed to may be gone as well
            print("the process that started this rank is gone: ending, too", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with launcher").start()


def create(parent: Path) -> Path:
    """A new folder `parent/<when>`, absolute; a suffix keeps two runs of the same second apart.

    Raises:
        OSError: the folder cannot be made.
    """
    when = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        folder = (parent / (when if number == 1 else f"{when}_{number}")).absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent} holds a thousand folders of this second")


def claim(folder: Path, key: str = "out") -> Path:
    """The folder that the user named with the setting `key`, absolute, new or empty (but for hidden files).

    Raises:
        FileExistsError: it holds something already.
        OSError: it cannot be made or written.
    """
    folder = folder.absolute()
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty, and nothing is overwritten: choose another folder with {key}=")
    return writable(folder)


def link_latest(folder: Path, link: Path) -> None:
    """Point `link` at `folder`, atomically; where the file system has no links, do without."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.symlink_to(os.path.relpath(folder, link.parent.absolute()))
        temporary.replace(link)
    except OSError:
        temporary.unlink(missing_ok=True)


def start(config: DictConfig, *, again: bool = False) -> Path:
    """This run's folder with its configuration in it; on other ranks a name that nothing is written under.

    `again`: `out` holds an earlier start of this run.

    Raises:
        OSError: it cannot be made, or `out` names one that holds something.
    """
    parent = ROOT / str(config.name)
    if not is_rank_zero():
        return Path(config.out) if again else parent
    folder = Path(config.out) if again else claim(Path(config.out)) if config.out else create(parent)
    lock(folder)
    write_whole(folder / "config.yaml", OmegaConf.to_yaml(config))
    if folder.parent.parent != (ROOT / "sweeps").absolute():
        link_latest(folder, ROOT / "latest")
    return folder


def lock(folder: Path) -> None:
    """Keep other processes out of the folder until this one ends, however it ends.

    Raises:
        OSError: another process is at work in it.
    """
    if not is_rank_zero() or any(Path(held.lock_file).parent == folder for held in _held):
        return
    held = FileLock(folder / ".lock")
    try:
        held.acquire(PATIENCE)
    except Timeout:
        raise BlockingIOError(f"another process is at work in {folder}: wait for its end, or end it") from None
    except (NotImplementedError, OSError):
        return  # a file system without locks
    _held.append(held)


def saved_config(folder: Path) -> dict[str, Any]:
    """A run's config.yaml, which may come from a stranger: plain values, interpolations left as text.

    Raises:
        ValueError: it is not a configuration.
    """
    file = folder / "config.yaml"
    try:
        large = file.stat().st_size > LARGEST
        text = "" if large else file.read_text(encoding="utf-8")
        aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
        tree = None if aliases else OmegaConf.to_container(OmegaConf.create(text))
    except (OSError, ValueError, RecursionError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{file} cannot be read as a configuration") from error
    if large:
        raise ValueError(f"{file} is larger than any configuration")
    if aliases:
        raise ValueError(f"{file} refers to itself, as no configuration of ours does")
    if not isinstance(tree, dict):
        raise ValueError(f"{file} is not a configuration")
    return {str(key): value for key, value in tree.items()}


def write_whole(path: Path, text: str) -> None:
    """Write a file that a reader sees as it was or as it is to be, never half; on the disk when this returns."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def say(*lines: str) -> None:
    """Print on rank 0."""
    if is_rank_zero():
        print("\n".join(lines), flush=True)


def evaluation_folder(run: Path | None, name: str, out: str | None, fingerprint: str) -> Path:
    """Where an evaluation goes: `out`, or the run's evaluations/<fingerprint>, or runs/evaluations/<name>.

    Raises:
        OSError: `out` holds something, or the folder cannot be made.
    """
    if out:
        return claim(Path(out)) if is_rank_zero() else Path(out)
    folder = (run / "evaluations" / fingerprint) if run else (ROOT / "evaluations" / name).absolute()
    if is_rank_zero():
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def figures_folder(run: Path | None, name: str, out: str | None) -> Path:
    """Where figures go, in place of those of the same name: `out`, the run's figures/, or runs/figures/<name>.

    Raises:
        OSError: it cannot be made or written.
    """
    folder = (Path(out) if out else run / "figures" if run else ROOT / "figures" / name).absolute()
    return writable(folder) if is_rank_zero() else folder


def writable(folder: Path) -> Path:
    """The folder, there and open to new files.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder
