"""The card of an export is the Hub's: its own library reads the numbers and their protocol back."""

import json
import os
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from random_checkpoint import saved

import ddpm
from ddpm.checkpoints.card import _front_matter
from ddpm.commands.evaluate import evaluate
from ddpm.commands.export import export
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.evaluation.protocol import digest_of_weights

METRICS = {
    "fid": {"value": 12.5, "n": 1500, "reference": "test", "reference_n": 297},
    "inception_score": {"value": 9.25, "std": 0.125, "n": 1500},
    "bits_per_dim": {"value": 1.75, "stderr": 0.01, "n": 297, "split": "test"},
}
PROTOCOL = {"fingerprint": "abc", "sampler": {"name": "ddim", "steps": 50, "eta": 1.0}, "timesteps": 1000}
RESULTS = {"metrics": METRICS, "protocol": PROTOCOL, "ckpt": "/elsewhere/last.ckpt"}


@pytest.fixture
def run(workspace):
    """A run's folder, with a checkpoint of random weights."""
    folder = workspace / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    saved(folder / "checkpoints" / "last.ckpt", "recipe=digits", "name=my digits: 1")
    return folder


def results_of(run, **others):
    """The text of a results.json of a run's weights."""
    return json.dumps({**RESULTS, "weights_sha256": digest_of_weights(ddpm.load(run)), **others})


def card_of(folder):
    return ModelCard.load(folder / "README.md", ignore_metadata_errors=False)


@pytest.mark.parametrize("kind", ["diffusers", "safetensors"])
def test_the_hub_s_library_reads_every_number_with_its_protocol(run, workspace, kind):
    (run / "results.json").write_text(results_of(run))
    export(["ckpt=run", "to=out", f"format={kind}"])
    about = card_of(workspace / "out").data
    assert about.model_name == "my digits: 1"
    assert about.pipeline_tag == "unconditional-image-generation"
    assert about.library_name == ("diffusers" if kind == "diffusers" else None)
    found = {each.metric_type: each for each in about.eval_results}
    assert found.keys() == METRICS.keys()
    for name, each in found.items():
        parts = METRICS[name]
        own = {part: value for part, value in parts.items() if part != "value"}
        assert (each.metric_value, each.metric_args) == (parts["value"], {**own, "protocol": PROTOCOL})
        assert (each.dataset_type, each.task_type) == ("digits", "unconditional-image-generation")
    assert found["fid"].metric_name == "FID"
    assert (found["fid"].dataset_split, found["inception_score"].dataset_split) == ("test", None)


def test_the_card_says_what_the_model_is_and_what_was_measured(workspace):
    small = [
        "recipe=lsun_church",
        "data.size=[8,16]",
        "network.channels=8",
        "network.groups=4",
        "network.channel_mult=[1,1]",
    ]
    small += ["network.num_res_blocks=1", "schedule.T=20"]
    (workspace / "run/checkpoints").mkdir(parents=True)
    (workspace / "run/config.yaml").touch()
    saved("run/checkpoints/last.ckpt", *small, "prediction=v", "variance=fixed_small", "name=mine", "sampler.steps=5")
    (workspace / "run/results.json").write_text(results_of("run"))
    p = ddpm.load("run")
    count = sum(weights.numel() for weights in p.network.parameters())
    export(["ckpt=run", "to=out"])
    card = card_of(workspace / "out")
    said = card.content
    assert f"of lsun_church images, 3x8x16: {count:,} parameters, after 7 steps of training." in " ".join(said.split())
    for line in ("| schedule | linear |", "| prediction | v |", "| variance | fixed_small |", "| T | 20 |"):
        assert line in said
    assert "num_inference_steps=20)" in said
    assert "| fid | 12.5000 | 1,500 images against 297 of test |" in said
    assert "| inception_score | 9.2500 ± 0.125 (std) | 1,500 images |" in said
    assert "| bits_per_dim | 1.7500 ± 0.01 (stderr) | 297 images |" in said
    of_test = {each.metric_type for each in card.data.eval_results if each.dataset_split == "test"}
    assert of_test == {"fid", "bits_per_dim"}
    assert not re.search(
        "[&*]id0", (workspace / "out/README.md").read_text()
    )  # an alias of YAML's, which the Hub does not read


def test_weights_of_no_step_are_not_said_to_be_trained_and_are_called_as_their_file(workspace):
    import torch

    saved("weights.ckpt", "recipe=digits", "name=other")
    content = torch.load("weights.ckpt", weights_only=True)
    torch.save({**content, "global_step": 0}, "weights.ckpt")
    export(["ckpt=weights.ckpt", "to=out", "format=safetensors"])
    said = card_of(workspace / "out").content
    assert "\n# weights\n" in said
    assert "ckpt=FOLDER" in said
    assert "num_inference_steps" not in said
    assert "parameters.\n" in said


def test_the_data_are_called_by_their_own_name():
    config = compose(["data=given", "data.name=mine", "data.shape=[1,8,8]", "data.content=x"])
    found = yaml.safe_load(_front_matter("model", config, "diffusers", RESULTS))
    assert [each["dataset"]["name"] for each in found["model-index"][0]["results"]] == ["mine"] * 2
    assert next(iter(found)) == "library_name"  # in the order of the Hub's own cards


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"metrics": 3},
        {"metrics": {"fid": {"value": 10**400, "n": 5}}},
        {"protocol": None},
        {"weights_sha256": "of others"},
        {"weights_sha256": None},
    ],
)
def test_what_is_no_evaluation_of_these_weights_is_not_quoted(run, workspace, content):
    (run / "results.json").write_text(content if isinstance(content, str) else results_of(run, **content))
    export(["ckpt=run", "to=out"])
    card = card_of(workspace / "out")
    assert card.data.eval_results is None
    assert card.content.rstrip().endswith("Not evaluated.")


def test_a_number_that_is_not_finite_is_left_out(run, workspace):
    metrics = {**METRICS, "fid": {**METRICS["fid"], "value": float("nan")}, "kid": {"value": "x", "n": 1}}
    (run / "results.json").write_text(results_of(run, metrics=metrics))
    export(["ckpt=run", "to=out"])
    assert card_of(workspace / "out").data.eval_results is None
    of_how_many = {"value": 2.0}  # is not said
    others = {"kid": {"value": 1.0, "n": 5}, "precision": of_how_many, "recall": {"value": 2.0, "n": "many"}}
    (run / "results.json").write_text(results_of(run, metrics={**metrics, **others}))
    export(["ckpt=run", "to=other"])
    assert {each.metric_type for each in card_of(workspace / "other").data.eval_results} == {
        "inception_score",
        "bits_per_dim",
        "kid",
    }


def test_files_of_one_name_in_no_run_keep_their_own_results(workspace):
    measured = {}
    for folder, gain in [("a", 1.0), ("b", 3.0)]:
        (workspace / folder).mkdir()
        saved(workspace / folder / "model.ckpt", "debug=smoke", gain=gain)
        found = evaluate([f"ckpt={folder}/model.ckpt", "evaluation.metrics=[fid]", "logger=csv"])
        measured[folder] = found.metrics["fid"]["value"]
    assert measured["a"] != measured["b"]
    for folder, fid in measured.items():
        export([f"ckpt={folder}/model.ckpt", f"to=of_{folder}"])
        (number,) = card_of(workspace / f"of_{folder}").data.eval_results
        assert number.metric_value == fid


def test_of_several_evaluations_of_a_file_the_newest_is_quoted(workspace):
    file = saved("model.ckpt", "recipe=digits")
    weights = digest_of_weights(ddpm.load(file))
    for name, time, fid in [("a", 200, 1.0), ("b", 300, 2.0), ("c", 100, 3.0)]:
        results = workspace / "runs" / "evaluations" / "model" / name / "results.json"
        results.parent.mkdir(parents=True)
        metrics = {"fid": {**METRICS["fid"], "value": fid}}
        results.write_text(json.dumps({**RESULTS, "metrics": metrics, "weights_sha256": weights}))
        os.utime(results, (time, time))
    export(["ckpt=model.ckpt", "to=out"])
    (number,) = card_of(workspace / "out").data.eval_results
    assert number.metric_value == 2


def test_a_fine_tuned_model_names_its_base(workspace):
    import torch

    saved("run.ckpt", "recipe=digits")
    content = torch.load("run.ckpt", weights_only=True)
    from ddpm.config import origin

    content["config"] = origin.signed({**content["config"], "init": "hf://google/ddpm-cifar10-32@main"})
    torch.save(content, "run.ckpt")
    export(["ckpt=run.ckpt", "to=out"])
    assert card_of(workspace / "out").data.base_model == "google/ddpm-cifar10-32"


@pytest.mark.parametrize("option", ["<img src=x>", "digits\n\n# Install\n", "\x1b[31m", ["a", "b c"], 3, ""])
def test_a_choice_of_a_stranger_s_that_is_no_name_is_refused(option, workspace):
    import torch

    saved("run.ckpt", "recipe=digits")
    content = torch.load("run.ckpt", weights_only=True)
    content["config"]["choices"]["data"] = option
    torch.save(content, "run.ckpt")
    with pytest.raises(RequestError, match="which is no option"):
        export(["ckpt=run.ckpt", "to=out"])
