"""The curves of report.html as SVG: one colour for each configuration, a line for each seed.

matplotlib draws with placeholder colours, which are replaced by CSS variables, so that the page can be light or dark.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import markupsafe

from ddpm.report import codecs
from ddpm.report.run import Curve, ReportedRun
from ddpm.report.table import Line
from ddpm.training.monitor import PREFIX

COLOURS = 6  # in the page's palette; further configurations use them again, dashed
DASHES = ((), (5.0, 2.0), (1.5, 1.5), (7.0, 2.0, 1.5, 2.0))
POINTS = 200  # that are drawn of a curve, at most
WINDOWS = 40  # a smoothed point is the mean over 1 / WINDOWS of its curve
LONGEST = 60  # characters at an axis
WIDE = 8.0  # ratio of the highest to the lowest value from which an axis is logarithmic
CROWDED = 1000  # ratio of the highest to the lowest value from which a logarithmic axis has room for 1, 10, ... alone
INK = "#010203"  # placeholder for the page's colour of text


@dataclass(frozen=True)
class Plot:
    """A figure of the page."""

    title: str
    caption: str
    svg: str


def plots(lines: Sequence[Line]) -> list[Plot]:
    """The figures for which some run has data."""
    beside = codecs.curves([run for line in lines for run in line.runs])
    validations = sorted({name for line in lines for run in line.runs for name in run.history if _of_validation(name)})
    drawn = [
        _plot(
            "Training loss",
            f"Running mean over 1/{WINDOWS} of each curve; logarithmic. Different objectives have different units.",
            _curves(lines, lambda run: smoothed(run.history.get("train/loss", ([], [])))),
            ("step", "loss"),
            log="y",
        ),
        *(
            _plot(
                "Validation",
                f"{name.removeprefix(PREFIX).replace('_', ' ')}: {_what(name)}.",
                _curves(lines, lambda run, name=name: run.history.get(name, ([], []))),  # type: ignore[misc]
                ("step", "bits/dim" if "bits_per_dim" in name else "value"),
                log="y if wide",
            )
            for name in validations
        ),
        _plot(
            "Terms of the bound",
            "What each t costs, L_{t-1}, in bits/dim (nats for points); both axes are logarithmic. The first is L_0.",
            _curves(lines, lambda run: run.terms),
            ("t", "term"),
            log="xy",
        ),
        _plot(
            "Rate and distortion",
            "RMSE (0..255) of x_0 as estimated from x_t, against the rate of x_T, ..., x_t; Figure 5 of the paper."
            + " Dotted: what codecs need for the same images, tiled." * bool(beside),
            _curves(lines, lambda run: run.rates),
            ("rate (bits/dim)", "RMSE"),
            beside=beside,
        ),
    ]
    return [plot for plot in drawn if plot]


def smoothed(curve: Curve) -> Curve:
    """The curve's running means over centred windows of 1 / WINDOWS of it, narrower at its ends."""
    x, y = curve
    half = round(len(y) / WINDOWS) // 2
    sums = [0.0, *accumulate(y)]
    spans = [(max(0, i - (reach := min(half, i, len(y) - 1 - i))), i + reach + 1) for i in range(len(y))]
    return x, [(sums[end] - sums[begin]) / (end - begin) for begin, end in spans]


def thinned(curve: Curve, log_x: bool) -> Curve:
    """At most POINTS points of the curve, evenly over the axis, the first and the last included."""
    x, y = curve
    last = len(x) - 1
    if last < POINTS:
        return curve
    shares = [i / (POINTS - 1) for i in range(POINTS)]
    kept = sorted({round((last + 1) ** share) - 1 if log_x else round(last * share) for share in shares})
    return [x[i] for i in kept], [y[i] for i in kept]


def dashes(i: int) -> tuple[float, ...]:
    """The dash pattern of the i-th configuration's curves; empty is a solid line."""
    return DASHES[i // COLOURS % len(DASHES)]


def _of_validation(name: str) -> bool:
    return name.startswith(PREFIX)


def _what(name: str) -> str:
    """What a validation has measured, of the averaged weights."""
    if name.startswith(f"{PREFIX}train_"):
        return "the same estimate on training images"
    return "an estimate of the bound on held-out images" if "bits_per_dim" in name else "by so many samples"


def _curves(lines: Sequence[Line], curve: Callable[[ReportedRun], Curve]) -> Iterator[tuple[int, int, Curve]]:
    """Yield for each run the index of its configuration, how many seeds that has, and the run's curve."""
    for i, line in enumerate(lines):
        for run in line.runs:
            yield i, len(line.runs), curve(run)


def _plot(
    title: str,
    caption: str,
    curves: Iterator[tuple[int, int, Curve]],
    labels: tuple[str, str],
    log: Literal["", "y", "xy", "y if wide"] = "",
    beside: Sequence[tuple[str, Curve]] = (),
) -> Plot | None:
    """A plot of the curves of runs, and of named ones `beside` them; None where no run has one."""
    drawable = []
    for i, seeds, (xs, ys) in curves:
        pairs = zip(xs, ys, strict=True)
        points = [(x, y) for x, y in pairs if (x > 0 or log != "xy") and (y > 0 or log not in ("y", "xy"))]
        if points:
            drawable.append((i, seeds, thinned(([x for x, _ in points], [y for _, y in points]), log == "xy")))
    if not drawable:
        return None

    def paint(axes: Any) -> None:
        for n, (i, seeds, (x, y)) in enumerate(drawable):
            (line,) = axes.plot(x, y, color=colour(i), linewidth=1.6 if seeds == 1 else 0.9, markersize=3)
            line.set_marker("o" if len(x) == 1 else "")
            line.set_linestyle((0, dashes(i)) if dashes(i) else "-")
            line.set_gid(f"line-{i}-{n}")
        for name, (x, y) in beside:
            axes.plot(x, y, color=INK, linewidth=0.9, linestyle=":", marker=".", markersize=2)
            place = {"textcoords": "offset points", "va": "center"}
            axes.annotate(name, (x[0], y[0]), (4, 0), color=INK, parse_math=False, **place)
        heights = [height for _, _, (_, y) in drawable for height in y]
        if log == "xy":
            _make_logarithmic(axes, "x", [place for _, _, (x, _) in drawable for place in x])
        if log in ("y", "xy"):
            _make_logarithmic(axes, "y", heights)
        elif log:
            widen(axes, "y", heights)

    return drawing(title, caption, labels, paint)


def widen(axes: Any, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make that axis of matplotlib's logarithmic where the values are far apart."""
    if 0 < min(values) < max(values) / WIDE:
        _make_logarithmic(axes, which, values)


def _make_logarithmic(axes: Any, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make that axis logarithmic, with plain numbers at its ticks: powers of ten alone where others have no room."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axis.set_major_formatter("{x:g}")  # powers of ten as text need a parser, a quarter of the drawing's time
    if max(values) < WIDE * min(values):  # perhaps between two powers of ten
        axis.set_major_locator(AutoLocator())
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter("{x:g}" if max(values) < CROWDED * min(values) else "")


def drawing(title: str, caption: str, labels: tuple[str, str], paint: Callable[[Any], None]) -> Plot:
    """A figure for the page, whose axes `paint` fills."""
    import matplotlib as mpl  # takes half a second, which a refused request does not wait for
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 9,
        **dict.fromkeys(ink, INK),
    }
    buffer = io.StringIO()
    with mpl.rc_context(settings | dict.fromkeys(ink, INK)):
        figure = Figure((5.2, 3.1), layout="constrained")
        axes = figure.subplots()
        paint(axes)
        axes.set_xlabel(cut(labels[0], LONGEST), parse_math=False)
        axes.set_ylabel(cut(labels[1], LONGEST), parse_math=False)
        axes.grid(color=INK, alpha=0.13, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Plot(title, caption, _for_page(buffer.getvalue(), title, caption))


def cut(text: str, longest: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def colour(i: int) -> str:
    """The placeholder for the i-th configuration's colour."""
    return f"#fe{i % COLOURS:02x}fe"


def _rounded(attribute: re.Match[str]) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute[0])


def _for_page(svg: str, title: str, caption: str) -> str:
    """matplotlib's SVG, made fit for the page: no prologue, CSS variables as colours, unique ids, rounded numbers."""
    name = re.sub(r"\W+", "-", f"{title}-{caption}".lower())[:60]
    svg = svg[svg.index("<svg") :].replace(INK, "var(--ink)")
    svg = re.sub(r"#fe0(\d)fe", r"var(--series-\1)", svg)
    svg = re.sub(r'<g id="line-(\d+)-\d+">', r'<g class="line" data-line="\1">', svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'="[^"]*"', _rounded, svg)  # of places; the numbers at ticks stay
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size
    begin = f'<svg {size[0]} role="img" aria-label="{markupsafe.escape(title)}">'  # its words may be a stranger's
    return re.sub(r"<svg [^>]*>", lambda _: begin, svg, count=1)
