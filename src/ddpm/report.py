"""The table at the end of a sweep: report.md, report.csv, report.html, and the terminal. Never imports torch."""

import base64
import csv
import html
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ddpm import cells


@dataclass(frozen=True)
class Column:
    """A metric of results.json: where it stands, how it is shown, which direction is better."""

    title: str
    metric: str
    part: str
    digits: int
    best: Any = None  # min or max


COLUMNS = (
    Column("IS", "inception_score", "value", 3, max),
    Column("FID", "fid", "value", 3, min),
    Column("bits/dim", "bits_per_dim", "value", 3, min),
    Column("rate", "bits_per_dim", "rate", 3),
    Column("distortion", "bits_per_dim", "distortion", 3),
)


@dataclass
class Row:
    """One cell: what it was asked, how it ended, what it measured."""

    folder: Path
    overrides: dict[str, str]
    status: str
    reason: str
    seconds: float
    metrics: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def value(self, column: Column) -> float | None:
        value = self.metrics.get(column.metric, {}).get(column.part)
        return float(value) if isinstance(value, (int, float)) else None


@dataclass
class Line:
    """Rows that differ in nothing but the seed."""

    overrides: dict[str, str]
    rows: list[Row]

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row.status == "finished"]

    def values(self, column: Column) -> list[float]:
        return [value for row in self.finished if (value := row.value(column)) is not None]

    def shown(self, column: Column) -> str:
        values = self.values(column)
        if not values:
            return ""
        mean = f"{statistics.mean(values):.{column.digits}f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{column.digits}f}"

    @property
    def note(self) -> str:
        other = {f"{row.status}: {row.reason}" for row in self.rows if row.status != "finished"}
        return "; ".join(sorted(other))

    @property
    def minutes(self) -> str:
        seconds = [row.seconds for row in self.finished]
        return f"{statistics.mean(seconds) / 60:.1f}" if seconds else ""


def write(folder: Path) -> list[Row]:
    """Write the three reports of a sweep's folder and print its table."""
    rows = collect(folder)
    lines = grouped(rows)
    (folder / "report.md").write_text(_markdown(lines))
    (folder / "report.csv").write_text(_csv(rows), newline="")
    (folder / "report.html").write_text(_html(folder, lines))
    Console(width=None if sys.stdout.isatty() else 160).print(_terminal(lines))
    if len({row.fingerprint for row in rows if row.fingerprint}) > 1:
        print("the rows were measured under different protocols: compare the fingerprints in report.csv first")
    return rows


def collect(folder: Path) -> list[Row]:
    """The cells of a sweep, in order; a results.json that cannot be read is said in its row."""
    rows = []
    for cell in cells.within(folder):
        overrides = dict(override.split("=", 1) for override in cell.overrides)
        row = Row(cell.folder, overrides, cell.status, cell.reason, cell.seconds)
        results = cell.folder / "results.json"
        if results.exists():
            try:
                content = json.loads(results.read_text())
                row.metrics, row.fingerprint = content["metrics"], content["protocol"]["fingerprint"]
            except (ValueError, KeyError, TypeError):
                row.status, row.reason = "failed", f"{results} is not complete"
        rows.append(row)
    return rows


def grouped(rows: Sequence[Row]) -> list[Line]:
    """Rows that differ only in the seed, together; of the overrides, only those that vary."""
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides if key != "seed"))
    varying = [key for key in keys if len({row.overrides.get(key) for row in rows}) > 1] or keys
    lines: dict[tuple[str, ...], Line] = {}
    for row in rows:
        shown = {key: row.overrides.get(key, "") for key in varying}
        lines.setdefault(tuple(shown.values()), Line(shown, [])).rows.append(row)
    return list(lines.values())


def _table(lines: Sequence[Line]) -> tuple[list[str], list[list[str]], set[tuple[int, int]]]:
    """Headings, texts, and which texts are the best of their column."""
    columns = [column for column in COLUMNS if any(line.values(column) for line in lines)]
    names = list(lines[0].overrides) if lines else []
    headings = [*names, *(column.title for column in columns), "minutes", "seeds", ""]
    texts, best = [], set()
    for line in lines:
        shown = [line.shown(column) for column in columns]
        texts.append([*line.overrides.values(), *shown, line.minutes, str(len(line.finished)), line.note])
    for j, column in enumerate(columns):
        means = {i: statistics.mean(values) for i, line in enumerate(lines) if (values := line.values(column))}
        if column.best and len(means) > 1:
            target = column.best(means.values())
            best |= {(i, len(names) + j) for i, mean in means.items() if mean == target}
    return headings, texts, best


def _terminal(lines: Sequence[Line]) -> Table:
    headings, texts, best = _table(lines)
    table = Table(*headings)
    for i, row in enumerate(texts):
        table.add_row(*(f"[bold]{cell}[/bold]" if (i, j) in best else cell for j, cell in enumerate(row)))
    return table


def _markdown(lines: Sequence[Line]) -> str:
    headings, texts, best = _table(lines)
    text = [headings, ["---"] * len(headings)]
    text += [[f"**{cell}**" if (i, j) in best else cell for j, cell in enumerate(row)] for i, row in enumerate(texts)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in text) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    """Every cell by itself, unrounded."""
    import io

    text = io.StringIO(newline="")
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    writer = csv.writer(text)
    writer.writerow([*keys, *(column.title for column in COLUMNS), "seconds", "status", "reason", "protocol", "folder"])
    for row in rows:
        values = [row.value(column) for column in COLUMNS]
        own = [row.overrides.get(key, "") for key in keys]
        writer.writerow([*own, *values, row.seconds, row.status, row.reason, row.fingerprint, row.folder.name])
    return text.getvalue()


def _html(folder: Path, lines: Sequence[Line]) -> str:
    """One self-contained page: the table, and each line's last sample grid."""
    headings, texts, best = _table(lines)

    def cell(i: int, j: int, text: str) -> str:
        return f"<td>{'<b>' * ((i, j) in best)}{html.escape(text)}{'</b>' * ((i, j) in best)}</td>"

    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "\n".join(
        f"<tr>{''.join(cell(i, j, text) for j, text in enumerate(row))}</tr>" for i, row in enumerate(texts)
    )
    pictures = "\n".join(_picture(line) for line in lines)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(folder.name)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ccc; }}
figure {{ display: inline-block; margin: 1rem 1rem 0 0; }} img {{ width: 340px; image-rendering: pixelated; }}
</style>
<h1>Sweep {html.escape(folder.name)}</h1>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
<h2>Samples, from the same noise</h2>
{pictures}
</html>
"""


def _picture(line: Line) -> str:
    grids = [grid for row in line.finished for grid in sorted((row.folder / "samples").glob("*.png"))[-1:]]
    if not grids:
        return ""
    data = base64.b64encode(grids[0].read_bytes()).decode()
    name = html.escape(", ".join(f"{key}={value}" for key, value in line.overrides.items()))
    image = f'<img src="data:image/png;base64,{data}" alt="samples: {name}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"
