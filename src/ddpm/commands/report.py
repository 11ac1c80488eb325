"""Write a report on runs that exist, finished or not.

    ddpm report FOLDER... [out=DIR]

FOLDER is the folder of a sweep or of a run, or one that contains such folders at any depth. report.html, report.md and
report.csv go to DIR: by default the sweep's folder if FOLDER is one, otherwise a new one under runs/reports/.
"""

from pathlib import Path

from ddpm import report
from ddpm.config.errors import RequestError, request_errors
from ddpm.messages import say
from ddpm.report import collect
from ddpm.runs import folders, records


def main(arguments: list[str]) -> int:
    """Write the report that the arguments ask for.

    Returns:
        The exit code.

    Raises:
        RequestError: an argument is wrong, or there are no runs.
    """
    where, out = request(arguments)
    found = collect.within(where)
    if not found:
        raise RequestError(f"there is no run in {', '.join(map(str, where))}: a run's folder has a config.yaml")
    with request_errors():
        if out is None and len(where) == 1 and records.folders(where[0]):
            out = where[0].resolve()
        out = folders.writable(out, deep=False) if out else folders.create(folders.ROOT / "reports")
    report.write(found, where, out)
    say(f"report: {out / 'report.html'}")
    return 0


def request(arguments: list[str]) -> tuple[list[Path], Path | None]:
    """The folders to report on, and the one where the report goes, if that is said.

    Raises:
        RequestError: there is no folder, one does not exist, or a flag is unknown.
    """
    said = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
    out = Path(said[-1] or ".").expanduser().absolute() if said else None
    return folders_of([each for each in arguments if not each.startswith("out=")], "report", " [out=DIR]"), out


def folders_of(arguments: list[str], command: str, more: str = "") -> list[Path]:
    """The folders that a command's arguments name.

    Raises:
        RequestError: there is none, one does not exist, or a flag is unknown.
    """
    usage = f"ddpm {command} takes FOLDER...{more}"
    if flag := next((argument for argument in arguments if argument.startswith("-")), ""):
        raise RequestError(f"unknown flag {flag}: {usage}")
    where = [Path(argument).expanduser() for argument in arguments]
    if missing := next((folder for folder in where if not folder.is_dir()), None):
        raise RequestError(f"{missing} is not a folder: {usage}")
    if not where:
        raise RequestError(f"which runs? ddpm {command} FOLDER..., a sweep's, a run's, or one that holds such")
    return where
