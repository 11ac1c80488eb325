"""The commands that answer questions in docs/faq.md are real."""

import json
import re
import shlex
import shutil
import tomllib

import numpy as np
import pytest
import yaml
from commands import ROOT
from PIL import Image

from ddpm.__main__ import main

TEXT = (ROOT / "docs" / "faq.md").read_text()
ANSWERS = {
    section.partition("\n")[0]: [
        shlex.split(line, comments=True)
        for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]
    for section in TEXT.split("\n## ")[1:]
}
SMALL = (
    "debug=smoke",
    "every.samples=100",
    "every.validation=6",  # at the end, so that there is a best checkpoint
    "logger=csv",
    "network.channels=8",
    "network.groups=4",
    "optimizer.anneal=false",  # so that the length may change
)


def test_the_table_of_errors_holds_the_numbers_of_the_newest_record():
    *_, newest = sorted((ROOT / "benchmarks" / "records").glob("*_protocol_errors.json"))
    errors = json.loads(newest.read_text())["errors"]
    rows = re.findall(r"^\| ([^|]*?) \| (\d+\.\d) \| ([+-]\d+\.\d\d ± \d+\.\d\d|) \|$", TEXT, re.MULTILINE)
    assert [what for what, _, _ in rows] == list(errors)
    for what, fid, difference in rows:
        found = errors[what]
        assert fid == f"{found['fid']:.1f}"
        assert difference == (f"{found['difference']:+.2f} ± {found['deviation']:.2f}" if what != rows[0][0] else "")


def test_every_question_is_answered_by_a_command():
    assert len(ANSWERS) >= 8
    assert [question for question, commands in ANSWERS.items() if not commands] == []
    assert {command[0] for commands in ANSWERS.values() for command in commands} == {"ddpm"}


@pytest.fixture
def as_a_reader(workspace, trained_run):
    """A folder with a run in it, and `pictures`: gray and coloured, of several sizes."""
    shutil.copytree(trained_run, workspace / "runs" / "first")
    (workspace / "runs" / "latest").symlink_to("first")
    draw = np.random.default_rng(0)
    (workspace / "pictures").mkdir()
    for k in range(80):
        shape = (20, 30, 3) if k % 2 else (24, 24)
        Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(workspace / "pictures" / f"{k}.png")
    return workspace


@pytest.mark.slow
def test_the_commands_run_in_order(as_a_reader):
    newest = as_a_reader / "runs" / "latest"
    for _, verb, *words in (command for commands in ANSWERS.values() for command in commands):
        before = newest.resolve()
        if verb in ("evaluate", "inspect", "diagnose"):
            assert main([verb, *words]) == 0
        elif any(word.startswith("resume=") for word in words):
            assert main([verb, *words, "max_steps=8"]) == 0  # two more than at first
            assert newest.resolve() == before
            assert _steps(newest) == 8
        else:
            assert main([verb, *words, *SMALL]) == 0
            assert newest.resolve() != before
            assert _steps(newest) == 6


def _steps(run):
    return int((run / "metrics.csv").read_text().splitlines()[-1].partition(",")[0])


def test_licence_and_citation_say_the_same():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == stated == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    assert "arxiv.org/abs/2006.11239" in citation["references"][0]["url"]
