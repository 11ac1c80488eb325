"""Where things are. A run folder, `runs/<name>/<when>/`, is made by rank 0 after every check and never overwritten."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from ddpm.files import write_whole
from ddpm.processes import is_rank_zero
from ddpm.runs import records

ROOT = Path("runs")
CONFIG = "config.yaml"  # in a run's folder
UNFINISHED = ".unfinished"  # inside an evaluation's folder: what it has done so far
PATIENCE = 10.0  # seconds for a killed predecessor to leave the folder
_held: list[FileLock] = []


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
        FileExistsError: it holds something already, or a file is in the way.
        OSError: it cannot be made or written.
    """
    check_free(folder, key)
    return writable(folder.absolute(), key)


def check_free(folder: Path, key: str = "out") -> None:
    """Check that the folder that the user named with the setting `key` can be claimed, before long work for it.

    Raises:
        FileExistsError: it holds something already, or a file is in the way.
    """
    folder = folder.absolute()
    _check_no_file(folder, key)
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty, and nothing is overwritten: choose another folder with {key}=")


def _check_no_file(folder: Path, key: str) -> None:
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"{path} is a file, and no folder: choose another folder with {key}=")
        if path.is_symlink() and not path.exists():
            raise FileExistsError(f"{path} is a link to nothing: choose another folder with {key}=")


def link_latest(folder: Path, link: Path) -> None:
    """Point `link` at `folder`, atomically; where the file system has no links, do without."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
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
    write_whole(folder / CONFIG, OmegaConf.to_yaml(config))
    if folder.parent.parent != (ROOT / "sweeps").absolute():
        link_latest(folder, ROOT / "latest")
    return folder


def lock(folder: Path) -> None:
    """Keep other processes out of the folder, until `releasing` ends or this process does, however it ends.

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


@contextlib.contextmanager
def releasing() -> Iterator[None]:
    """Give back, at the end, the folders that were locked meanwhile: a notebook goes on after its run has ended."""
    before = len(_held)
    try:
        yield
    finally:
        while len(_held) > before:
            _held.pop().release()


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in the folder, which may not exist."""
    file = folder / ".lock"
    if not file.is_file():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False  # a file system without locks


def evaluation_folder(run: Path | None, name: str, out: str | None, evaluation: str) -> Path:
    """Where an evaluation goes: `out`, or the run's evaluations/EVALUATION, or runs/evaluations/NAME/EVALUATION.

    Raises:
        OSError: `out` holds something, unless a sweep or an unfinished evaluation began it, or it cannot be made.
        ValueError: the sweep's record of it is damaged.
    """
    if out:
        folder = Path(out).absolute()
        if not is_rank_zero():
            return folder
        begun = (folder / UNFINISHED).is_dir() and not any(
            (folder / name).exists() for name in ("results.json", CONFIG)
        )
        return writable(folder) if records.of(folder) or begun else claim(folder)
    folder = ((run or ROOT) / "evaluations" / ("" if run else name) / evaluation).absolute()
    if is_rank_zero():
        if run:
            check_inside(run)
        writable(folder)
    return folder


def figures_folder(run: Path | None, name: str, out: str | None) -> Path:
    """Where figures go, in place of those of the same name: `out`, the run's figures/, or runs/figures/<name>.

    Raises:
        OSError: it cannot be made or written.
    """
    folder = (Path(out) if out else run / "figures" if run else ROOT / "figures" / name).absolute()
    if run and not out and is_rank_zero():
        check_inside(run)
    return writable(folder) if is_rank_zero() else folder


def check_inside(folder: Path, *, deep: bool = True) -> None:
    """Check that what is written into a folder stays in it: no link leads out, and there are files and folders only.

    Args:
        deep: files are written into the folders inside it, too, and not into itself alone.

    Raises:
        PermissionError: something in it is a link that leads out, or a pipe or a device.
    """
    whole = folder.resolve()
    for parent, inner, files in os.walk(folder):
        if (
            Path(parent).parent.name == "wandb"
        ):  # a run of W&B's, in which it has links to its cache; new ones are its own
            inner.clear()
            continue
        if not deep:
            inner.clear()
        for name in (*inner, *files):
            path = Path(parent, name)
            if path.is_symlink():
                if not path.resolve().is_relative_to(whole):
                    raise PermissionError(
                        f"{path} leads out of {folder}: what is written there could overwrite anything"
                    )
            elif not (path.is_file() or path.is_dir()):
                raise PermissionError(f"{path} is neither a file nor a folder: take it away")


def writable(folder: Path, key: str = "out", *, deep: bool = True) -> Path:
    """The folder, which the user may have named with the setting `key`, there and open to new files.

    `deep`: into the folders inside it, too.

    Raises:
        OSError: it cannot be made or written.
    """
    _check_no_file(folder, key)
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    check_inside(folder, deep=deep)
    return folder
