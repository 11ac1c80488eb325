"""Facts that are read from source files are those that the imported classes have."""

import importlib
import json
import subprocess
import sys

import hydra
import pytest

from ddpm.checkpoints.converters import Layout
from ddpm.config.facts import fact
from ddpm.config.targets import allowed_targets
from ddpm.figures.context import NamedFigure

NAMES = (
    *("learned", "adaptive", "trains_variance", "needs_learned_variance", "uniform", "event_ndim"),
    *("takes", "classes", "needs", "needs_dropped"),
)


@pytest.fixture(scope="module")
def read():
    """target -> name -> fact, as a process finds them that has not imported torch."""
    code = (
        "import json, sys\nfrom ddpm.config.facts import fact\nfrom ddpm.config.targets import allowed_targets\n"
        f"found = {{t: {{n: v for n in {NAMES!r} if (v := fact(t, n)) is not None}} for t in allowed_targets()\n"
        "         if t.rpartition('.')[2][0].isupper() and t.split('.')[1] in ('diffusion', 'networks', 'data')}\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_source_says_what_the_class_has(read):
    assert len(read) > 20
    for target, facts in read.items():
        module, _, name = target.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        has = {n: value for n in NAMES if (value := getattr(cls, n, None)) is not None}
        assert facts == json.loads(json.dumps(has)), target


def test_every_variance_objective_network_and_dataset_states_its_facts(read):
    due = {"variance": {"learned"}, "networks": {"event_ndim", "takes"}, "data": {"event_ndim"}}
    due |= {"conditioning": set(), "guidance": {"needs_dropped"}}
    for target, facts in read.items():
        assert due.get(target.split(".")[-2], due.get(target.split(".")[1], set())) <= facts.keys(), target


def module_of(tmp_path, monkeypatch, name, text):
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_facts_are_inherited_overridden_annotated_and_computed(tmp_path, monkeypatch):
    module_of(tmp_path, monkeypatch, "facts_base", "class Base:\n    learned = True\n    depth: int = 3\n")
    module_of(
        tmp_path,
        monkeypatch,
        "facts_mine",
        "from facts_base import Base as Above\nclass Mine(Above):\n    depth = 4\nclass Inner(Mine): ...\n"
        "class Computed:\n    learned = bool(1)\n",
    )
    assert fact("facts_mine.Mine", "learned") is True
    assert fact("facts_mine.Inner", "depth") == 4
    assert fact("facts_base.Base", "depth") == 3
    assert "facts_mine" not in sys.modules
    assert fact("facts_mine.Computed", "learned") is True  # imported
    assert "facts_mine" in sys.modules
    assert fact("facts_mine.Nobody", "learned") is None
    assert fact("nowhere.Nobody", "learned") is None


def test_conf_names_what_exists():
    for target in allowed_targets():
        found = hydra.utils.get_object(target)
        assert callable(found) or isinstance(found, NamedFigure | Layout), target
