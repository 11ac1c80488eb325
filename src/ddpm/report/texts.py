"""The table of a report as text: for the terminal, as Markdown, and each run by itself as CSV."""

import csv
import html
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from rich import box
from rich.console import JustifyMethod
from rich.table import Table as RichTable
from rich.text import Text

from ddpm.messages import printable
from ddpm.report.run import NOISE, ReportedRun
from ddpm.report.table import Line, Table

NOTE = 60  # characters after which a note is wrapped in the terminal's table


def terminal(made: Table) -> RichTable:
    """The table for a terminal."""
    headings, rows, best = _cells(made)
    shown = RichTable(box=box.SIMPLE_HEAD)
    for j, heading in enumerate(headings):
        note, number = j == len(headings) - 1, j >= len(made.settings)
        side: JustifyMethod = "right" if number and not note else "left"
        shown.add_column(Text(heading), justify=side, overflow="fold", max_width=NOTE if note else None)
    for i, row in enumerate(rows):
        shown.add_row(*(Text(cell, style="bold" if (i, j) in best else "") for j, cell in enumerate(row)))
    return shown


def markdown(made: Table, out: Path) -> str:
    """The content of report.md in the folder `out`: the table, its notes, links to the runs."""
    headings, rows, best = _cells(made)
    lines = [[*map(_escaped, headings), "runs"], ["---"] * (len(headings) + 1)]
    for i, (row, line) in enumerate(zip(rows, made.lines, strict=True)):
        cells = [f"**{_escaped(cell)}**" if (i, j) in best else _escaped(cell) for j, cell in enumerate(row)]
        begun = [run for run in line.runs if run.folder.is_dir()]
        links = (f"[seed {_escaped(run.seed or '?')}]({link(run.folder, out)})" for run in begun)
        lines.append([*cells, " ".join(links)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "\n".join(f"- {_escaped(note)}" for note in made.notes)
    return f"{table}\n\n{notes}\n"


def every_run(made: Table, runs: Sequence[ReportedRun], out: Path) -> str:
    """The content of report.csv in the folder `out`: every run by itself, unrounded."""
    text = io.StringIO(newline="")
    of_noise = [NOISE] * any(NOISE in (run.overrides or {}) for run in runs)
    keys = list(dict.fromkeys([*made.settings, "seed", *of_noise]))
    numbers = {column.title: (column.metric, column.part) for column in made.columns}
    errors = {c.title: (c.metric, c.quantity.error) for c in made.columns if c.ranked and c.quantity.error}
    headings = [heading for title in numbers for heading in [title, *[f"{title}, error"] * (title in errors)]]
    sources = numbers | {f"{title}, error": source for title, source in errors.items()}
    writer = csv.writer(text, lineterminator="\n")
    end = ("seconds", "training seconds", "status", "reason", "protocol", "folder")
    writer.writerow([*keys, *headings, *end])
    for run in runs:
        values = [run.measured.get(metric, {}).get(part) for metric, part in map(sources.__getitem__, headings)]
        folder = os.path.relpath(run.folder, out.resolve())
        about = (run.seconds, run.training_seconds, run.status, run.why, run.fingerprint, printable(folder))
        writer.writerow([*(run.setting(key) for key in keys), *values, *about])
    return text.getvalue()


def link(target: Path, out: Path) -> str:
    """The relative URL of a file or folder, for a page in the folder `out`."""
    return quote(os.fsencode(os.path.relpath(target, out.resolve())))


def minutes(made: Table, line: Line) -> str:
    """The minutes of a line as text, "" where they are not known."""
    value = made.minutes(line)
    return "" if value is None else f"{value:.1f}"


def _cells(made: Table) -> tuple[list[str], list[list[str]], set[tuple[int, int]]]:
    """The headings, the texts of every row, and (row, column) of the texts that are the best of their column."""
    headings, rows, best = list(made.settings), [list(line.settings.values()) for line in made.lines], set()
    for j, column in enumerate(made.columns):
        best |= {(i, len(headings)) for i in range(len(rows)) if (i, j) in made.best}
        headings.append(column.title)
        for line, row in zip(made.lines, rows, strict=True):
            row.append(line.shown(column))
        if column in made.published:
            headings.append(f"{column.title}, published")
            for line, row in zip(made.lines, rows, strict=True):
                row.append(" ".join(filter(None, line.published(column) or ())))
    for line, row in zip(made.lines, rows, strict=True):
        row += [minutes(made, line), line.seeds, line.note]
    return [*headings, made.minutes_title, "seeds", "note"], rows, best


def _escaped(text: str) -> str:
    """The text, escaped so that Markdown shows it as it is."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(text, quote=False))
