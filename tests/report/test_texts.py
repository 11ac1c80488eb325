"""The command, the terminal's table, report.md and report.csv."""

import csv
import html
import os
import subprocess
import sys
from urllib.parse import unquote

import pytest
from commands import run
from written_runs import measured, write_cell, write_run

from ddpm import report


@pytest.fixture
def sweep(workspace):
    """Three objectives, two seeds of the first, one refused."""
    folder = workspace / "runs/sweeps/s"
    for seed, fid in ((1, 2.0), (2, 3.123456789)):
        write_cell(folder, seed, "objective=vlb", f"seed={seed}", seed=seed, choices={"objective": "vlb"},
                   metrics=measured(fid=fid))  # fmt: skip
    write_cell(folder, 3, "objective=simple", "seed=1", metrics=measured(fid=4.0))
    write_cell(folder, 4, "objective=hybrid", "seed=1", status="refused", reason="no | fixed <b>variance</b>",
               begun=False)  # fmt: skip
    return folder


@pytest.mark.long
def test_a_sweeps_report_is_written_into_it_and_printed(sweep, workspace):
    done = run("-m", "ddpm", "report", "runs/sweeps/s", cwd=workspace)
    assert f"report: {sweep / 'report.html'}" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "vlb" in line]
    assert line.split() == ["vlb", "2.562", "±", "0.794", "1.0", "2"]
    assert "no | fixed <b>variance</b>" in done.stdout
    assert not (workspace / "runs/reports").exists()


@pytest.mark.long
def test_any_other_report_has_a_folder_of_its_own_or_the_one_asked_for(sweep, workspace):
    write_run(workspace / "runs/digits/a", metrics=measured(fid=5.0))
    run("-m", "ddpm", "report", "runs/digits", str(sweep), cwd=workspace)
    (made,) = (workspace / "runs/reports").iterdir()
    run("-m", "ddpm", "report", str(sweep), "out=a folder/with = signs", cwd=workspace)
    for folder in (made, workspace / "a folder/with = signs"):
        assert {path.name for path in folder.iterdir()} == {"report.html", "report.md", "report.csv"}
    assert not (sweep / "report.md").exists()


@pytest.mark.long
def test_a_report_is_no_run_of_the_next_report(sweep, workspace):
    run("-m", "ddpm", "report", "runs", cwd=workspace)
    run("-m", "ddpm", "report", "runs", "out=second", cwd=workspace)
    assert len((workspace / "second/report.csv").read_text().splitlines()) == 1 + 4


def test_a_refused_report_waits_for_no_library(workspace):
    code = "import sys, ddpm.commands.report; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "wandb", "matplotlib", "PIL.Image"} & set(loaded)


def test_the_csv_has_every_run_unrounded(sweep):
    report.publish([sweep], sweep)
    with (sweep / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["objective"], row["seed"], row["status"]) for row in rows] == [
        ("vlb", "1", "finished"),
        ("vlb", "2", "finished"),
        ("simple", "1", "finished"),
        ("hybrid", "1", "refused"),
    ]
    assert "evaluation.seed" not in rows[0]  # a column of sweeps over it
    assert rows[1]["FID"] == "3.123456789"
    assert rows[0]["protocol"] == "bfc09718a5"
    assert rows[0]["seconds"] == "60.0"
    assert rows[3]["reason"] == "no | fixed <b>variance</b>"
    assert (sweep / rows[0]["folder"] / "config.yaml").exists()


def test_markdown_shows_text_as_it_is_and_links_the_runs(sweep, workspace):
    out = workspace / "elsewhere"
    out.mkdir()
    report.publish([sweep], out)
    lines = (out / "report.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "**2.562 ± 0.794**" in table[2]
    assert "no \\| fixed &lt;b&gt;variance&lt;/b&gt;" in table[4]
    links = [part.partition(")")[0] for part in table[2].split("](")[1:]]
    assert [os.path.normpath(out / unquote(link)) for link in links] == [
        str(sweep / "001_cell"),
        str(sweep / "002_cell"),
    ]


def test_names_that_no_text_can_hold_are_shown_as_far_as_they_can(workspace):
    folder = write_run(workspace / "runs" / os.fsdecode(b"caf\xe9 <i>"), metrics=measured(fid=5.0))
    report.publish([folder.parent], workspace)
    assert "caf%E9%20%3Ci%3E" in (workspace / "report.md").read_text()
    assert html.escape("caf%E9%20%3Ci%3E/config.yaml") in (workspace / "report.html").read_text()


def test_an_empty_sweep_has_an_empty_report(workspace):
    report.publish([workspace], workspace)
    assert len((workspace / "report.csv").read_text().splitlines()) == 1
