"""report.html, one file that needs no other. Its template is page.html, and everything that goes in is escaped."""

import base64
import functools
import hashlib
import importlib.resources
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ddpm.messages import printable
from ddpm.report import curves, trends
from ddpm.report.pictures import Picture, film, newest, sheet
from ddpm.report.reading import bounded
from ddpm.report.run import ReportedRun
from ddpm.report.settings import differences
from ddpm.report.table import Column, Line, Table
from ddpm.report.texts import link, minutes

LONGEST_URL = 300
MOST_FILMS = 6  # configurations whose training is shown as a film, which takes half a second to make


@dataclass(frozen=True)
class Number:
    """A number in the page's table: its text, and the value by which rows are sorted."""

    text: str
    value: float | None
    aside: str = ""  # the deviation, or the run's own error
    published: tuple[str, str] | None = None  # value, verdicts
    best: bool = False


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with the line of the table, and the run, from which it is."""

    index: int
    line: Line
    run: ReportedRun
    picture: Picture


def render(made: Table, runs: Sequence[ReportedRun], title: str, out: Path) -> str:
    """The content of report.html in the folder `out`."""
    script = importlib.resources.files("ddpm.report").joinpath("page.js").read_text(encoding="utf-8")
    lines = [(line, _numbers(made, i, line), _by_seed(made, line)) for i, line in enumerate(made.lines)]
    counts = Counter(run.status or "unknown" for run in runs)
    keys = differences(runs)
    content = {
        "title": title,
        "script": Markup(script),  # our own; the page's policy lets no other run
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "made_at": time.strftime("%Y-%m-%d %H:%M"),
        "counts": sorted(counts.items(), key=lambda item: -item[1]),
        "made": made,
        "lines": lines,
        "samples": _pictures(made.lines, partial(newest, folder="samples")),
        "data": _distinct(_pictures(made.lines, sheet)),
        "films": _pictures(made.lines[:MOST_FILMS], film),
        "strips": _pictures(made.lines, partial(newest, folder="progressive")),
        "plots": [*trends.plots(made), *curves.plots(made.lines)],
        "dashes": [" ".join(map(str, curves.dashes(i))) for i in range(len(made.lines))],
        "colours": curves.COLOURS,
        "differences": [(key, [_values(line, key) for line in made.lines]) for key in keys],
        "link": lambda target: link(target, out),
        "files": _files,
        "wandb": _wandb,
    }
    return _template().render(content)


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ddpm.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup  # our own drawing
    return environment.get_template("page.html")


def _numbers(made: Table, i: int, line: Line) -> list[Number]:
    numbers = []
    for j, column in enumerate(made.columns):
        mean = line.mean(column)
        text = "" if mean is None else column.number(mean)
        numbers.append(Number(text, mean, line.aside(column), line.published(column), (i, j) in made.best))
    return [*numbers, Number(minutes(made, line), made.minutes(line))]


def _by_seed(made: Table, line: Line) -> list[tuple[ReportedRun, list[Number]]]:
    """The runs of a line with their own numbers; none if there is only one run."""
    if len(line.runs) < 2:
        return []
    alone = [(run, Line(line.settings, [run])) for run in line.runs]
    return [(run, [_alone(each, column) for column in made.columns] + [_minutes(made, each)]) for run, each in alone]


def _alone(line: Line, column: Column) -> Number:
    mean = line.mean(column)
    return Number("" if mean is None else column.number(mean), mean, line.error(column))


def _minutes(made: Table, line: Line) -> Number:
    return Number(minutes(made, line), made.minutes(line))


def _pictures(lines: Sequence[Line], of: Callable[[ReportedRun], Picture | None]) -> list[LabelledPicture]:
    """Find for each line the picture of the first finished run that has one."""
    found = (next(((run, picture) for run in line.finished if (picture := of(run))), None) for line in lines)
    return [
        LabelledPicture(i, line, *each)
        for i, (line, each) in enumerate(zip(lines, found, strict=True))
        if each is not None
    ]


def _distinct(pictures: Sequence[LabelledPicture]) -> list[LabelledPicture]:
    """Leave out each picture that is the same as an earlier one, as runs on the same data have."""
    return list({each.picture.source: each for each in reversed(pictures)}.values())[::-1]


def _values(line: Line, key: str) -> str:
    return " / ".join(dict.fromkeys(run.setting(key) for run in line.runs))


def _files(run: ReportedRun) -> list[Path]:
    """The files of a run that exist and that the page links to."""
    names = ("config.yaml", "results.json", "metrics.csv")
    return [file for file in (run.folder / name for name in names) if file.is_file()]


def _wandb(run: ReportedRun) -> tuple[str, str]:
    """The address at which W&B shows the run, and, for a run that was logged offline, the command that uploads it."""
    url = printable((bounded(run, run.folder / "wandb" / "url") or b"")[:LONGEST_URL].decode(errors="replace"))
    if url.startswith("https://"):
        return url, ""
    offline = sorted(path for path in (run.folder / "wandb").glob("offline-run-*") if path.is_dir())
    return "", printable(f"wandb sync {' '.join(shlex.quote(str(path)) for path in offline)}") if offline else ""
