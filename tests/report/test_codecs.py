"""What picture codecs need, beside the bound of the same images, in a report."""

import math
import re

import pytest
from written_runs import measured, write_cell, write_run

from ddpm import report
from ddpm.report import collect, curves, table


def coded(png=4.5, n=297, title="PNG"):
    """The codecs' part of a results.json."""
    jpeg = {"title": "JPEG", "quality": [1, 50], "rate_bits_per_dim": [0.25, 1.5], "rmse": [20.0, 5.0]}
    return {"split": "test", "n": n, "pillow": "13.0.0", "lossless": {"png": {"title": title, "value": png}},
            "lossy": {"jpeg": jpeg}}  # fmt: skip


def test_one_sentence_for_each_set_of_images(tmp_path):
    for name, found in (("a", coded()), ("b", coded()), ("c", coded(3.25, n=20)), ("d", None)):
        rates = {"optimizer.lr": ord(name)}
        write_run(tmp_path / name, metrics=measured(bits_per_dim=4.0), codecs=found, settings=rates)
    diverged = {"metrics": measured(bits_per_dim=4.0), "codecs": coded(n=5)}
    write_cell(tmp_path / "s", 0, "optimizer.lr=1", status="diverged", **diverged)
    notes = [note for note in table.of(collect.within([tmp_path])).notes if note.startswith("Beside bits/dim")]
    assert len(notes) == 2
    assert "PNG 4.5000; the same 297 test images of digits 1500+297 1x8x8" in notes[0]
    assert "PNG 3.2500; the same 20 test images" in notes[1]


def test_a_codec_without_a_finite_rate_has_no_curve(tmp_path):
    found = coded()
    found["lossy"]["jpeg"]["rate_bits_per_dim"] = [None, math.inf]
    run = write_run(tmp_path / "run", metrics=measured(bits_per_dim=4.0), codecs=found)
    report.write(collect.within([run]), [run], tmp_path)
    (codecs,) = [each.codecs for each in collect.within([run])]
    assert codecs.curves == {}


def test_the_numbers_of_a_codec_are_those_of_the_file(tmp_path):
    """Nothing beyond an empty file is needed for images of one colour: 0 bits, which is a number."""
    (run,) = collect.within([write_run(tmp_path / "a", metrics=measured(bits_per_dim=4.0), codecs=coded(0.0))])
    assert run.codecs.lossless == {"PNG": 0.0}
    assert run.codecs.curves == {"JPEG": ([0.25, 1.5], [20.0, 5.0])}  # of rates 0.25 and 1.5


def test_a_codec_is_named_where_its_curve_begins(tmp_path):
    """At its lowest rate, where the curves are the furthest from each other."""
    run = write_run(tmp_path / "a", metrics=measured(bits_per_dim=4.0), codecs=coded())
    (run / "rate_distortion.csv").write_text("rate_bits_per_dim,rmse\n0,20\n1,5\n")
    (plot,) = (each for each in curves.plots(table.of(collect.within([run])).lines) if each.title.startswith("Rate"))
    x, y = map(float, re.search(r'x="([\d.]+)" y="([\d.]+)"[^>]*>JPEG<', plot.svg).groups())
    ends = re.findall(r"[ML] ([\d.]+) ([\d.]+)", plot.svg.partition('data-line="0"')[2])[:2]
    (left, top), (right, _) = [map(float, end) for end in ends]
    assert (x - left) / (right - left) == pytest.approx(0.25, abs=0.05)  # of the run's way from rate 0 to 1
    assert y == pytest.approx(top, abs=5)  # where the distortion is the run's first, 20


@pytest.mark.long
def test_the_rates_of_codecs_are_drawn_once_beside_those_of_runs(tmp_path):
    for name in "ab":
        run = write_run(tmp_path / name, metrics=measured(bits_per_dim=4.0), codecs=coded())
        (run / "rate_distortion.csv").write_text("rate_bits_per_dim,rmse\n0.1,60\n2,1\n")
    report.publish([tmp_path], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count(">JPEG<") == 1
    assert "Dotted: what codecs need" in page


@pytest.mark.long
def test_a_page_without_codecs_does_not_speak_of_them(tmp_path):
    run = write_run(tmp_path / "a", metrics=measured(bits_per_dim=4.0))
    (run / "rate_distortion.csv").write_text("rate_bits_per_dim,rmse\n0.1,60\n2,1\n")
    report.publish([tmp_path], tmp_path)
    assert "Dotted" not in (tmp_path / "report.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize(("title", "value"), [("<b>$\\frac", 1e300), ("a\nb", float("nan")), ("$", "x")])
def test_what_strangers_wrote_breaks_no_page(tmp_path, title, value):
    found = coded(value, title=title)
    found["lossy"]["jpeg"]["title"] = title
    run = write_run(tmp_path / "a", metrics=measured(bits_per_dim=4.0), codecs=found)
    (run / "rate_distortion.csv").write_text("rate_bits_per_dim,rmse\n0.1,60\n2,1\n")
    report.publish([run], tmp_path)
    assert "<b>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("codecs", [[1], {"n": 3}, {**coded(), "lossy": {"jpeg": {"title": "JPEG", "rmse": [1]}}},
                                    {**coded(), "lossless": [1]}])  # fmt: skip
def test_a_damaged_part_is_a_problem_of_the_run(tmp_path, codecs):
    (run,) = collect.within([write_run(tmp_path / "a", metrics=measured(bits_per_dim=4.0), codecs=codecs)])
    assert "results.json is not complete" in run.why
    assert run.measured["bits_per_dim"]["value"] == 4.0
