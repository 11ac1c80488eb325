"""The view of a W&B project shows what a run logs; and the agent of a W&B sweep says what train.py understands."""

import csv
import json
import multiprocessing
import re
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from wandb import wandb_agent

from ddpm.__main__ import main
from ddpm.config import command
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.metrics import registry
from ddpm.training.monitor import samples_name

ROOT = Path(__file__).parents[2]


@pytest.fixture
def saved(monkeypatch):
    """The views that were sent to W&B, as its package sends them."""
    from wandb_workspaces.workspaces import internal

    views = []

    def upsert(view):
        views.append(view)
        return {"upsertView": {"view": {"name": "abc", "id": "def"}}}

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    # The address of a view is asked for, too.
    monkeypatch.setattr(wandb, "Api", lambda: None)
    monkeypatch.setattr("wandb_workspaces.workspaces.interface.get_app_url", lambda _: "https://wandb.ai")
    return views


def panels(view):
    """The view's panels by section, as the JSON that W&B gets."""
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_every_number_that_a_run_logs_is_on_a_panel(saved, trained_run, capsys):
    assert main(["wandb-workspace", "entity=us", "project=mine"]) == 0
    assert "W&B view: https://wandb.ai/us/mine" in capsys.readouterr().out
    [view] = saved
    assert (view.entity, view.project, view.display_name) == ("us", "mine", "ddpm")
    by_section = panels(view)
    with (trained_run / "metrics.csv").open() as file:
        logged = set(next(csv.reader(file)))
    drawn = json.dumps(by_section["training"])
    assert set(re.findall(r'"(train/\w+)"', drawn)) == {name for name in logged if name.startswith("train/")}
    bits, of_samples = [panel["config"]["metricRegex"] for panel in by_section["validation"]]
    validated = [name for name in logged if name.startswith("validation/")]
    assert len(validated) == 2  # of held-out and of training images
    assert all(re.fullmatch(bits, name) for name in validated)
    few = samples_name("fid", 500)
    assert [bool(re.fullmatch(pattern, few)) for pattern in (bits, of_samples)] == [False, True]
    assert "trainer/global_step" in drawn


def test_samples_terms_and_numbers_have_sections(saved):
    main(["wandb-workspace", "entity=us", "name=another"])
    assert (saved[0].display_name, saved[0].project) == ("another", "ddpm")
    by_section = panels(saved[0])
    media = [panel["config"]["mediaKeys"] for panel in by_section["samples"]]
    assert media == [["samples", "progressive"], ["data", "training"], ["evaluation/samples", "evaluation/reverse"]]
    terms = json.dumps(by_section["terms of the bound by t"])
    assert all(f'"{stage}/terms_by_t"' in terms for stage in ("validation", "evaluation"))
    numbers, compared = json.dumps(by_section["evaluation"]), json.dumps(by_section["sweep"])
    for name in ("bits_per_dim", *(each for metric in registry.metrics().values() for each in metric.quantities)):
        assert f"evaluation/{name}" in numbers
        assert f"evaluation/{name}" in compared
    assert all(
        f"config:choices.value.{each}" in compared for each in ("prediction", "variance", "objective", "sampler")
    )
    assert not any(f"choices.value.{group}" in compared for group in ("recipe", "trainer", "logger", "debug"))


def unreachable(*_, **__):
    raise ConnectionError("no route\nto W&B")


def test_without_a_key_a_network_or_a_known_word_it_is_one_line(monkeypatch, saved):
    from wandb_workspaces.workspaces import internal

    monkeypatch.setattr(wandb, "login", lambda **_: False)
    with pytest.raises(RequestError, match="W&B knows no key here: wandb login"):
        main(["wandb-workspace"])
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", unreachable)
    with pytest.raises(RequestError, match=r"W&B cannot be reached: no route$"):
        main(["wandb-workspace"])
    monkeypatch.setattr(internal, "upsert_view2", unreachable)
    with pytest.raises(RequestError, match=r"W&B has not taken the view: no route$"):
        main(["wandb-workspace", "entity=us"])
    with pytest.raises(RequestError, match="panels=3 is none of project=, entity=, name="):
        main(["wandb-workspace", "panels=3"])
    assert not saved


def test_the_package_that_is_missing_is_named(monkeypatch):
    for name in ("wandb_workspaces", "wandb_workspaces.reports", "wandb_workspaces.reports.v2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match="needs an extra dependency: pip install 'wandb-workspaces"):
        main(["wandb-workspace", "entity=us"])


@pytest.mark.parametrize("which", [0, 1])
def test_the_agent_of_a_sweep_says_what_train_understands(workspace, monkeypatch, which):
    """W&B's own agent composes the command line from what its server, which is not there, would answer."""
    sweep = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text())
    started = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda **how: started.append(how) or type("Started", (), {})())
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # which the agent sets, and this takes back
    agent = wandb_agent.Agent(None, multiprocessing.Queue(), sweep_id="s")
    agent._sweep_command = sweep["command"]
    chosen = {}
    for key, about in sweep["parameters"].items():
        ends = [about.get("min"), about.get("max")]
        chosen[key] = {"value": about["value"] if "value" in about else about.get("values", ends)[which]}
    agent._command_run({"run_id": "r", "program": sweep["program"], "args": chosen})
    env, interpreter, program, *overrides = started[0]["command"]
    assert (env, interpreter, program) == ("/usr/bin/env", "python", "train.py")
    composed = []
    assert command.command_line(overrides, lambda words: composed.append(compose(words)), None, compose, "train") == 0
    [config] = composed
    assert config.choices.prediction == ("eps", "v")[which]
    assert list(config.network.channel_mult) == [[1, 1], [1, 2]][which]
    assert config.optimizer.lr == (1e-4, 1e-2)[which]
    assert (config.evaluate_after, config.sampler.steps) == (True, None)
    name = sweep["metric"]["name"].removeprefix("evaluation/")
    assert name in config.evaluation.metrics
    assert sweep["metric"]["goal"] == {"lower": "minimize", "higher": "maximize"}[registry.of(name).better]
