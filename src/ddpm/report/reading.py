"""The files of a run are read here, which may be half-written or come from strangers.

Nothing is read that is larger than any file of ours, is not a plain file, or lies outside of its run's folder. What
could not be read is kept among the run's problems.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from ddpm.messages import printable
from ddpm.report.run import Curve, ReportedRun

MOST_COLUMNS = 500  # of a metrics.csv; ours have about 30
HUGE = 1e100  # whatever is not smaller is no number of ours, and would overflow where it is drawn
MAX_BYTES = 1 << 25  # bytes of a file that is read; a metrics.csv of 800,000 steps has 3 MB


def bounded(run: ReportedRun, file: Path) -> bytes | None:
    """The content of a run's file; None if there is none or it is not to be read, which the run's problems then say."""
    try:
        check_file(file, run.folder)
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        run.problems.append(printable(f"{file.relative_to(run.folder)}: {why}"))
        return None


def check_file(file: Path, folder: Path) -> None:
    """Check that a file is one that may be read.

    Raises:
        OSError, ValueError: it is not.
    """
    if file.stat().st_size > MAX_BYTES:
        raise ValueError("larger than any of ours")
    if not file.is_file():
        raise ValueError("not a file")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError("leads out of the folder")


def tree_of(run: ReportedRun, name: str) -> dict[str, Any] | None:
    """The content of a JSON file that holds a dict; None, and a problem of the run, if there is none."""
    content = bounded(run, run.folder / name)
    if content is None:
        return None
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        run.problems.append(f"{name} is not complete")
        return None
    return tree


def columns_of(run: ReportedRun, name: str, *due: str) -> dict[str, list[float | None]]:
    """The columns of a table of numbers, up to the first damaged line; `due` are columns that it must have."""
    content = bounded(run, run.folder / name)
    if content is None:
        return {}
    reader = csv.reader(io.StringIO(content.decode(errors="replace"), newline=""), strict=True)
    columns: dict[str, list[float | None]] = {}
    try:
        heading = next(reader, [])
        if len(heading) > MOST_COLUMNS:
            run.problems.append(f"{name} has {len(heading)} columns, more than any of ours")
            return {}
        columns = {printable(column): [] for column in heading}
        for line in reader:
            if len(line) != len(columns):
                raise ValueError
            numbers = [float(each) if each else None for each in line]
            for values, number in zip(columns.values(), numbers, strict=True):
                values.append(number if number is not None and abs(number) < HUGE else None)
    except (ValueError, csv.Error):
        run.problems.append(f"{name} is damaged from line {reader.line_num}")
    if missing := [column for column in due if column not in columns]:
        run.problems.append(f"{name} has no column {' and '.join(missing)}")
    return columns


def curve(table: dict[str, list[float | None]], x: str, y: str) -> Curve:
    """The points (x, y) of two columns, where both have a number."""
    rows = zip(table.get(x, []), table.get(y, []), strict=True) if table.keys() >= {x, y} else ()
    known = [(a, b) for a, b in rows if a is not None and b is not None]
    return [a for a, _ in known], [b for _, b in known]


def finite(value: Any) -> float | None:
    """The value as a float if it is a number, finite and not absurd, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if abs(value) < HUGE else None
    except OverflowError:
        return None
