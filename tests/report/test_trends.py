"""Metrics over a setting that is a number."""

import re

import pytest
from written_runs import measured, write_cell

from ddpm.report import collect, table, trends


def plots(folder):
    return trends.plots(table.of(collect.within([folder])))


@pytest.fixture
def sweep(tmp_path):
    """FID of two samplers at three numbers of steps, with two seeds of the noise."""
    cells = [(name, steps, seed) for name in ("ddim", "dpm_solver") for steps in (10, 5, 50) for seed in (0, 1)]
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


def test_the_curve_has_the_means_and_its_bars_the_deviations(sweep, monkeypatch):
    drawn = []

    class Axes:
        def errorbar(self, x, y, yerr, **_):
            drawn.append((x, y, yerr))

        def annotate(self, *_, **__): ...

    monkeypatch.setattr(trends.curves, "widen", lambda *_: None)

    def drawing(title, caption, labels, paint):
        paint(Axes())
        return trends.Plot(title, caption, "")

    monkeypatch.setattr(trends.curves, "drawing", drawing)
    plots(sweep)
    (x, means, bars) = drawn[-2]  # FID comes after IS, and ddim first
    assert x == [5, 10, 50]
    assert means == pytest.approx([21.5, 11.5, 3.5])
    assert bars == pytest.approx([0.5**0.5] * 3)


def test_a_value_without_end_makes_no_figure(tmp_path):
    for i, gamma in enumerate((1, 5, ".inf")):
        write_cell(tmp_path, i, f"weighting.gamma={gamma}", metrics=measured(fid=1.0 + i))
    assert plots(tmp_path) == []


def test_words_and_two_values_make_no_figure(tmp_path):
    for i, (steps, name) in enumerate([(5, "ddim"), (10, "ancestral"), (10, "dpm_solver")]):
        overrides = (f"sampler={name}", f"sampler.steps={steps}")
        write_cell(tmp_path, i, *overrides, choices={"sampler": name}, metrics=measured(fid=1.0 + i))
    assert plots(tmp_path) == []
