"""Metrics over a setting that is a number."""

import re

import pytest
from written_runs import measured, write_cell

from ddpm.report import collect, table, trends


def plots(folder):
    return trends.plots(table.of(collect.within([folder])))


@pytest.fixture
def sweep(tmp_path):
    """FID of two samplers at three numbers of steps, with three seeds of the noise."""
    cells = [(name, steps, seed) for name in ("ddim", "dpm_solver") for steps in (10, 5, 50) for seed in (0, 1, 5)]
    for i, (name, steps, seed) in enumerate(cells):
        own = {"fid": 100 / steps + seed + (name == "ddim"), "inception_score": 9.0}
        overrides = (f"sampler={name}", f"sampler.steps={steps}", f"evaluation.seed={seed}")
        write_cell(tmp_path, i, *overrides, choices={"sampler": name}, metrics=measured(**own))
    return tmp_path


def test_each_metric_has_a_figure_with_a_curve_for_each_combination_of_the_others(sweep):
    fid, score = plots(sweep)[::-1]
    assert {fid.title, score.title} == {"FID over sampler.steps", "IS over sampler.steps"}
    for plot in (fid, score):
        assert re.findall(r">(ddim|dpm_solver)<", plot.svg) == ["ddim", "dpm_solver"]


class Axes:
    """What is drawn on the axes of matplotlib."""

    def __init__(self):
        self.curves, self.labels = [], []

    def errorbar(self, x, y, yerr, color, **_):
        self.curves.append((x, y, yerr, color))

    def annotate(self, text, place, _, color, **__):
        self.labels.append((text, place, color))


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure by its title, of figures that are plotted in the test."""
    axes = {}

    def drawing(title, caption, labels, paint):
        paint(axes.setdefault(title, Axes()))
        return trends.Plot(title, caption, "")

    monkeypatch.setattr(trends.curves, "widen", lambda *_: None)
    monkeypatch.setattr(trends.curves, "drawing", drawing)
    return axes


def test_the_curve_has_the_means_and_its_bars_the_deviations(sweep, drawn):
    """The deviation of 0, 1 and 5 is the root of (4 + 1 + 9) / 2."""
    plots(sweep)
    x, means, bars, _ = drawn["FID over sampler.steps"].curves[0]  # ddim's
    assert x == [5, 10, 50]
    assert means == pytest.approx([23.0, 13.0, 5.0])
    assert bars == pytest.approx([7**0.5] * 3)


def test_each_curve_is_named_in_its_colour_at_its_last_point(sweep, drawn):
    plots(sweep)
    axes = drawn["FID over sampler.steps"]
    ends = [((x[-1], means[-1]), colour) for x, means, _, colour in axes.curves]
    assert [(place, colour) for _, place, colour in axes.labels] == ends
    assert [text for text, _, _ in axes.labels] == ["ddim", "dpm_solver"]
    assert len({colour for _, colour in ends}) == 2


def test_only_what_was_measured_is_drawn_and_only_what_can_be_better_or_worse(tmp_path, drawn):
    """The rate and the distortion are parts of the bound: neither alone says which model is better."""
    for i, bits in enumerate((4.0, 3.75, None, 3.5)):
        settings = {"optimizer.lr": i}
        write_cell(tmp_path, i, f"optimizer.lr={i}", settings=settings, metrics=measured(fid=i, bits_per_dim=bits))
    plots(tmp_path)
    assert drawn.keys() == {"FID over optimizer.lr", "bits/dim over optimizer.lr"}
    (curve,) = drawn["bits/dim over optimizer.lr"].curves
    assert curve[:2] == ([0, 1, 3], [4.0, 3.75, 3.5])


def test_a_value_without_end_makes_no_figure(tmp_path):
    for i, gamma in enumerate((1, 5, ".inf")):
        write_cell(tmp_path, i, f"weighting.gamma={gamma}", metrics=measured(fid=1.0 + i))
    assert plots(tmp_path) == []


def test_words_and_two_values_make_no_figure(tmp_path):
    for i, (steps, name) in enumerate([(5, "ddim"), (10, "ancestral"), (10, "dpm_solver")]):
        overrides = (f"sampler={name}", f"sampler.steps={steps}")
        write_cell(tmp_path, i, *overrides, choices={"sampler": name}, metrics=measured(fid=1.0 + i))
    assert plots(tmp_path) == []
