"""What the page draws, point by point."""

import re
import statistics
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from ddpm.report import curves
from ddpm.report.run import ReportedRun
from ddpm.report.table import Line


def drawn(svg):
    """The points of every line of a figure, by configuration."""
    found = re.findall(r'<g class="line" data-line="(\d+)">\s*<path d="([^"]*)"', svg)
    return {int(i): re.findall(r"[ML] ([\d.]+) ([\d.]+)", path) for i, path in found}


def line(name, *histories, **about):
    runs = [ReportedRun(Path(f"/{name}{i}"), "finished", history=dict(history)) for i, history in enumerate(histories)]
    return Line({"objective": name}, runs or [ReportedRun(Path(f"/{name}"), "finished", **about)])


def test_a_smoothed_point_is_the_mean_around_it():
    y = [float(i**2 % 7) for i in range(200)]
    x, smooth = curves.smoothed(([float(i) for i in range(200)], y))
    assert len(x) == len(smooth) == 200
    assert smooth[100] == pytest.approx(statistics.fmean(y[98:103]))
    assert smooth[0] == y[0]
    assert smooth[199] == pytest.approx(y[199])


@given(st.lists(st.floats(-1e3, 1e3), max_size=300))
def test_smoothing_keeps_within_the_curve(y):
    x, smooth = curves.smoothed(([float(i) for i in range(len(y))], y))
    assert len(smooth) == len(x) == len(y)
    assert all(min(y) - 1e-6 <= each <= max(y) + 1e-6 for each in smooth)


@given(st.integers(0, 5000), st.booleans())
def test_a_long_curve_keeps_its_ends_and_few_points(n, log):
    x = [float(i + 1) for i in range(n)]
    kept, y = curves.thinned((x, x), log)
    assert kept == y == sorted(set(kept))
    assert len(kept) <= max(curves.POINTS, 1)
    assert kept[:1] == x[:1]
    assert kept[-1:] == x[-1:]
    if n <= curves.POINTS:
        assert kept == x


def test_dashes_tell_apart_configurations_of_the_same_colour():
    assert [curves.dashes(i) for i in range(curves.COLOURS)] == [()] * curves.COLOURS
    again = {curves.dashes(k * curves.COLOURS) for k in range(len(curves.DASHES))}
    assert again == set(curves.DASHES)


@pytest.mark.parametrize(("values", "scale"), [((1.0, 7.0), "linear"), ((1.0, 9.0), "log"), ((0.0, 9.0), "linear")])
def test_an_axis_is_logarithmic_where_values_are_far_apart(values, scale):
    axes = Figure().subplots()
    curves.widen(axes, "y", values)
    assert (axes.get_yscale(), axes.get_xscale()) == (scale, "linear")


def test_every_configuration_is_a_line_that_the_legend_can_find():
    history = {"train/loss": ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])}
    (plot,) = curves.plots([line("a", history, history), line("b", history)])
    assert plot.title == "Training loss"
    assert sorted(re.findall(r'data-line="(\d+)"', plot.svg)) == ["0", "0", "1"]
    assert "var(--series-0)" in plot.svg
    assert "var(--ink)" in plot.svg
    assert not re.search(r"#[0-9a-f]{6}", plot.svg)  # every colour is the page's


def test_a_curve_goes_where_its_numbers_go():
    (plot,) = curves.plots([line("a", rates=([0.0, 1.0, 2.0], [30.0, 20.0, 0.0]))])
    points = [(float(x), float(y)) for x, y in drawn(plot.svg)[0]]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(points)]
    assert steps[0][0] == pytest.approx(steps[1][0], abs=0.02)
    assert steps[1][1] == pytest.approx(2 * steps[0][1], abs=0.05)  # down is more, in SVG


DECADES, THIRDS = [1.0, 10.0, 100.0], [1.0, 2.0, 3.0]
VALIDATION = "validation/bits_per_dim_16_timesteps"


@pytest.mark.parametrize(
    ("about", "axes"),
    [
        ({"history": {"train/loss": (THIRDS, DECADES)}}, ("step", "loss")),
        ({"history": {VALIDATION: (THIRDS, THIRDS)}}, ("step", "bits/dim")),
        ({"history": {VALIDATION: (THIRDS, DECADES)}}, ("step", "bits/dim")),
        ({"history": {"validation/fid_100_samples": (THIRDS, THIRDS)}}, ("step", "value")),
        ({"terms": (DECADES, DECADES)}, ("t", "term")),
        ({"rates": (THIRDS, THIRDS)}, ("rate (bits/dim)", "RMSE")),
    ],
    ids=["loss", "validation", "wide validation", "of samples", "bound", "rate"],
)
def test_equal_ratios_are_equal_ways_where_an_axis_is_logarithmic_and_equal_differences_elsewhere(about, axes):
    (plot,) = curves.plots([line("a", **about)])
    points = [(float(x), float(y)) for x, y in drawn(plot.svg)[0]]
    for values in zip(*points, strict=True):
        first, second = (b - a for a, b in pairwise(values))
        assert first == pytest.approx(second, abs=0.03)
    assert all(f">{label}</text>" in plot.svg for label in axes)


def test_a_caption_says_what_was_validated():
    names = [VALIDATION, "validation/train_bits_per_dim_16_timesteps", "validation/fid_100_samples"]
    found = curves.plots([line("a", dict.fromkeys(names, (THIRDS, THIRDS)))])
    assert [plot.caption for plot in found] == [
        "bits per dim 16 timesteps: an estimate of the bound on held-out images.",
        "fid 100 samples: by so many samples.",
        "train bits per dim 16 timesteps: the same estimate on training images.",
    ]


def of_lines(svg):
    """This lists each line of a figure: the number of its configuration, and its part of the SVG."""
    _, *parts = svg.split('<g class="line" data-line="')
    return [(part[0], part.partition('<g id="')[0]) for part in parts]


def test_a_configuration_keeps_its_colour_and_dashes_where_another_has_no_curve():
    lines = [line(str(i), {"train/loss": (THIRDS, THIRDS)} if i in (1, 8) else {}) for i in range(9)]
    (plot,) = curves.plots(lines)
    assert [(i, re.search(r"--series-\d", part)[0], "dasharray" in part) for i, part in of_lines(plot.svg)] == [
        ("1", "--series-1", False), ("8", "--series-2", True),
    ]  # fmt: skip


def test_a_line_is_thin_among_several_seeds_and_a_single_point_is_marked():
    one, several = ({"train/loss": (THIRDS[:n], THIRDS[:n])} for n in (1, 3))
    (plot,) = curves.plots([line("alone", several), line("seeds", several, several), line("point", one)])
    found = [(i, re.search(r"stroke-width: ([\d.]+)", part)[1], "<use" in part) for i, part in of_lines(plot.svg)]
    assert found == [("0", "1.6", False), ("1", "0.9", False), ("1", "0.9", False), ("2", "1.6", True)]


def test_a_title_of_a_stranger_s_is_text_and_long_labels_are_cut():
    title = '<b>\\1&"'
    made = curves.drawing(title, "", ("x" * 60, "y$\\frac{$" + "z" * 60), lambda axes: axes.plot([1], [1]))
    assert 'aria-label="&lt;b&gt;\\1&amp;&#34;"' in made.svg
    assert f">{'x' * 60}</text>" in made.svg
    assert f">y$\\frac{{${'z' * 50}…</text>" in made.svg
    assert len("y$\\frac{$" + "z" * 50 + "…") == 60


def test_what_a_logarithm_cannot_show_is_left_out():
    assert curves.plots([line("a", terms=([1.0, 2.0], [0.0, -1.0]))]) == []
    (plot,) = curves.plots([line("a", terms=([1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 1.0, 0.5]))])
    assert len(drawn(plot.svg)[0]) == 3
    (plot,) = curves.plots([line("a", terms=([0.0, 1.0, 2.0], [2.0, 1.0, 0.5]))])
    assert len(drawn(plot.svg)[0]) == 2
    (plot,) = curves.plots([line("a", {"train/loss": ([0.0, 1.0, 2.0, 3.0], [-0.5, 2.0, 1.0, 0.5])})])
    assert len(drawn(plot.svg)[0]) == 3


@pytest.mark.parametrize(("highest", "between"), [(900.0, True), (9000.0, False)])
def test_a_logarithmic_axis_has_plain_numbers_and_those_between_powers_of_ten_where_there_is_room(highest, between):
    (plot,) = curves.plots([line("a", {"train/loss": ([1.0, 2.0], [1.0, highest])})])
    ticks = set(re.findall(r">([\d.]+)</text>", plot.svg))
    assert {"1", "10", "100"} <= ticks
    assert ({"20", "50", "200", "500"} <= ticks) == between


def test_a_logarithmic_axis_has_ticks_between_powers_of_ten_where_there_are_none_of_these():
    (plot,) = curves.plots([line("a", {"train/loss": ([1.0, 2.0], [0.031, 0.034])})])
    assert len(set(re.findall(r">0\.03([\d.]+)</text>", plot.svg))) > 3


def test_the_ticks_of_values_that_nearly_agree_differ():
    (plot,) = curves.plots([line("a", rates=([0.0, 1.0], [0.0101, 0.0109]))])
    ticks = re.findall(r">(0\.\d+)</text>", plot.svg)
    assert len(set(ticks)) > 5
    assert len(ticks) == len(set(ticks))


def test_figures_are_the_same_each_time_and_share_no_id():
    names = ("train/loss", VALIDATION, "validation/fid_100_samples")
    history = {name: ([1.0, 2.0], [2.0, 1.0]) for name in names}
    lines = [line("a", history)]
    once, again = curves.plots(lines), curves.plots(lines)
    assert once == again
    ids = [set(re.findall(r'id="([^"]*)"', plot.svg)) for plot in once]
    assert all(not one & other for one, other in combinations(ids, 2))
    assert all(
        set(re.findall(r'(?:url\(|href=")#([^")]*)', plot.svg)) <= own for plot, own in zip(once, ids, strict=True)
    )
