"""How the metrics of a report depend on a setting that is a number: FID over the steps of a sampler, say."""

import math
import statistics
from typing import Any

from ddpm.report import curves
from ddpm.report.curves import Plot
from ddpm.report.table import Column, Line, Table

FEWEST = 3  # values of a setting that make a figure
LONGEST = 30  # characters of a name beside a curve: it takes the place of the axes


def plots(made: Table) -> list[Plot]:
    """Draw every metric that is ranked over every setting that is a number in all lines, if it has enough values."""
    ranked = [column for column in made.columns if column.ranked]
    return [_plot(made, key, column) for key in made.settings if _is_number(made, key) for column in ranked]


def _is_number(made: Table, key: str) -> bool:
    values = [_number(line, key) for line in made.lines]
    return all(value is not None for value in values) and len(set(values)) >= FEWEST


def _number(line: Line, key: str) -> float | None:
    try:
        value = float(line.settings[key])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plot(made: Table, key: str, column: Column) -> Plot:
    """A curve for each combination of the other settings, with the deviation over seeds as bars."""
    groups: dict[str, list[tuple[int, Line]]] = {}
    for i, line in enumerate(made.lines):
        if line.mean(column) is not None:
            rest = Line({name: value for name, value in line.settings.items() if name != key}, line.runs)
            groups.setdefault(rest.name if rest.settings else "", []).append((i, line))

    def paint(axes: Any) -> None:
        xs = [_number(line, key) for line in made.lines]
        for n, (name, members) in enumerate(groups.items()):
            points = sorted((_number(line, key) or 0.0, line.values(column)) for _, line in members)
            x, means = [at for at, _ in points], [statistics.fmean(values) for _, values in points]
            bars = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
            how = {"color": curves.colour(n), "marker": "o", "markersize": 3, "linewidth": 1.2, "capsize": 2}
            axes.errorbar(x, means, yerr=bars if any(bars) else None, **how)
            place = {"textcoords": "offset points", "va": "center", "parse_math": False}
            axes.annotate(curves.cut(name, LONGEST), (x[-1], means[-1]), (4, 0), color=curves.colour(n), **place)
        curves.widen(axes, "x", [x for x in xs if x is not None])
        curves.widen(axes, "y", [mean for line in made.lines if (mean := line.mean(column)) is not None])

    return curves.drawing(
        f"{column.quantity.title} over {key}",
        "Means; bars are the sample deviation over seeds where there are several.",
        (key, column.quantity.title),
        paint,
    )
