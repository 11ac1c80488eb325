"""The report on a sweep or on any collection of runs: report.md, report.csv and report.html.

Nothing here imports torch.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ddpm.files import write_whole
from ddpm.messages import printable
from ddpm.report import collect, page, table, texts
from ddpm.report.run import ReportedRun
from ddpm.runs import records

WIDTH = 400  # characters of a printed line where there is no terminal


def publish(folders: Sequence[Path], out: Path) -> None:
    """Report on the runs in `folders`: write three files into `out`, and print the table."""
    write(collect.within(folders), folders, out)


def write(found: Sequence[ReportedRun], folders: Sequence[Path], out: Path) -> None:
    """Write and print the report on runs that have been collected already from `folders`."""
    made = table.of(found)
    kind = "Sweep " if records.folders(folders[0]) else ""
    title = f"{kind}{folders[0].resolve().name}" if len(folders) == 1 else f"{len(folders)} folders of runs"
    # The page first, since it notes in the runs which pictures cannot be read.
    html = page.render(made, found, printable(title), out)
    write_whole(out / "report.html", html, shared=True)
    write_whole(out / "report.md", texts.markdown(made, out), shared=True)
    write_whole(out / "report.csv", texts.every_run(made, found, out), shared=True)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(texts.terminal(made))
    for note in made.notes:
        console.print(note, style="dim", highlight=False, markup=False)
