"""The report on runs that are there.

    python -m ddpm.report FOLDER... [out=DIR]

FOLDER is a sweep's folder, a run's, or any that holds such, at any depth. report.html, report.md and report.csv go to
DIR: by default the folder itself where it is one sweep's, else a new one under runs/reports/.
"""

import sys
from pathlib import Path

from ddpm import cells, cli, report, runs
from ddpm.report import collect


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    folders, out = request(sys.argv[1:])
    found = collect.within(folders)
    if not found:
        raise cli.RequestError(f"there is no run in {', '.join(map(str, folders))}: a run's folder has a config.yaml")
    with cli.request():
        if out is None and len(folders) == 1 and cells.folders(folders[0]):
            out = folders[0].resolve()
        out = runs.writable(out) if out else runs.create(runs.ROOT / "reports")
    report.write(found, folders, out)
    print(f"report: {out / 'report.html'}")
    return 0


def request(arguments: list[str]) -> tuple[list[Path], Path | None]:
    """The folders, which exist, and where the report goes.

    Raises:
        RequestError: there is none, or it is no folder.
    """
    folders: list[Path] = []
    out = None
    for argument in arguments:
        if argument.startswith("out="):
            out = Path(argument.removeprefix("out=") or ".").expanduser().absolute()
        elif argument.startswith("-"):
            raise cli.RequestError(f"unknown flag {argument}: python -m ddpm.report takes FOLDER... [out=DIR]")
        elif not Path(argument).expanduser().is_dir():
            raise cli.RequestError(f"{argument} is not a folder: python -m ddpm.report takes FOLDER... [out=DIR]")
        else:
            folders.append(Path(argument).expanduser())
    if not folders:
        raise cli.RequestError(
            "which runs? python -m ddpm.report FOLDER..., a sweep's, a run's, or one that holds such"
        )
    return folders, out


if __name__ == "__main__":
    cli.guarded(main)
