"""scripts/draw_charts.py draws what a run's files say."""

import csv
import runpy
import sys

import numpy as np
import pytest
from commands import ROOT
from matplotlib.figure import Figure
from PIL import Image

SCRIPT = str(ROOT / "scripts/draw_charts.py")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(SCRIPT)


def drawn(script, run, panel):
    """The axes with one panel of a run, and the columns of its metrics.csv without empty cells, by name."""
    axes = Figure().subplots()
    script["draw"](axes, run, panel, "the run")
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {
        name: ([int(row["step"]) for row in rows if row[name]], [float(row[name]) for row in rows if row[name]])
        for name in rows[0]
    }
    return axes, columns


def test_a_column_and_its_average_over_steps(run_folder, script):
    axes, columns = drawn(script, run_folder, "train/loss")
    raw, average = axes.get_lines()
    steps, values = columns["train/loss"]
    assert (raw.get_xdata().tolist(), raw.get_ydata().tolist()) == (steps, values)
    for n, found in enumerate(average.get_ydata(), start=1):
        weights = 0.9 ** np.arange(n)[::-1]  # the newest last
        assert found == pytest.approx(np.exp((weights * np.log(values[:n])).sum() / weights.sum()))
    assert average.get_label() == "the run"
    assert axes.get_yscale() == "log"


def test_validation_and_quarters_are_found_by_name(run_folder, script):
    axes, columns = drawn(script, run_folder, "validation")
    (line,) = axes.get_lines()
    ((steps, values),) = (column for name, column in columns.items() if name.startswith("validation/bits_per_dim"))
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == (steps, values)
    axes, columns = drawn(script, run_folder, "quarters")
    curves = axes.get_lines()[::2]
    assert [each.get_label() for each in axes.get_lines()[1::2]] == [f"quarter {k}" for k in range(1, 5)]
    for k, curve in enumerate(curves, start=1):
        steps, values = columns[f"train/loss_quarter_{k}"]
        assert (curve.get_xdata().tolist(), curve.get_ydata().tolist()) == (steps, values)


def test_terms_of_the_bound_by_t(run_folder, script):
    (run_folder / "bound.csv").write_text("t,term,term_stderr\n1,4,0\n2,3,0\n3,2,0\n4,1,0\n")
    axes, _ = drawn(script, run_folder, "terms_by_t")
    (steps,) = axes.patches
    assert steps.get_data().values.tolist() == [4, 3, 2, 1]
    assert (np.diff(steps.get_data().edges) > 0).all()


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["draw_charts.py", *map(str, words)])
    runpy.run_path(SCRIPT, run_name="__main__")


def test_runs_side_by_side_as_a_user_asks_for_them(run_folder, workspace, monkeypatch):
    called(monkeypatch, f"one={run_folder}", f"two={run_folder}", "train/loss", "validation", "-o", "new/charts.png")
    with Image.open(workspace / "new/charts.png") as picture:
        assert picture.size == (660, 250)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 100
    called(monkeypatch, run_folder, "train/loss", "quarters", "validation", "train/gradient_norm", "-o", "four.png")
    with Image.open(workspace / "four.png") as picture:
        assert picture.size == (990, 500)


def test_the_first_rows_of_the_pictures_of_all_steps_below_each_other(run_folder, workspace, monkeypatch):
    shown = sorted((run_folder / "samples").glob("*.png"))
    called(monkeypatch, run_folder, "samples", "-o", "samples.png")
    with Image.open(shown[0]) as one, Image.open(workspace / "samples.png") as all_:
        assert all_.width == one.width
        assert all_.height > len(shown) * one.height // 4  # 2 of 8 rows each, and a line of text
        rows = np.asarray(all_.convert("RGB"))
        part = np.asarray(one.convert("RGB"))[: one.height // 4]
        places = [y for y in range(len(rows) - len(part) + 1) if np.array_equal(rows[y : y + len(part)], part)]
        assert len(places) == 1


def test_without_a_run_or_a_panel_it_says_what_to_name(run_folder, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        called(monkeypatch, run_folder, "-o", "x.png")
    assert "name run folders and panels" in capsys.readouterr().err
