"""Checkpoints and folders that were made to do harm, or were only damaged: one line, before anything is allocated."""

import json
import os

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.commands.evaluate import evaluate
from ddpm.commands.train import train
from ddpm.config.errors import RequestError
from ddpm.config.grammar import quote_paths


def edited(run, edit):
    """The run with a last.ckpt that `edit` has changed in place, or that holds what `edit` returns."""
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    other = edit(content)
    torch.save(content if other is None else other, file)


def averaged(content, change):
    weight_of("p_ema", content, change)


def raw(content, change):
    weight_of("p.network", content, change)


def weight_of(where, content, change):
    name = next(key for key in content["state_dict"] if key.startswith(where))
    content["state_dict"][name] = change(content["state_dict"][name])


def one_is_none(weights):
    weights = weights.clone()
    weights.view(-1)[-1] = float("nan")
    return weights


def put(*path_and_value):
    *path, last, value = path_and_value

    def edit(content):
        for part in path:
            content = content[part]
        content[last] = value

    return edit


NOT_WEIGHTS = {
    "not a number": (lambda c: averaged(c, lambda w: w.fill_(float("nan"))), "not finite"),
    "one number is none": (lambda c: averaged(c, one_is_none), "not finite"),
    "infinite": (lambda c: averaged(c, lambda w: w.fill_(float("inf"))), "not finite"),
    "complex": (lambda c: averaged(c, lambda w: w.to(torch.complex64)), "real numbers"),
    "whole numbers": (lambda c: averaged(c, lambda w: w.to(torch.int64)), "of another kind"),
    "sparse": (lambda c: averaged(c, lambda w: w.to_sparse()), "real numbers|cut short"),
    "text": (lambda c: averaged(c, lambda w: "weights"), "is a str, not a tensor"),
    "nowhere": (lambda c: averaged(c, lambda w: w.to("meta")), "real numbers"),
    "another shape": (lambda c: averaged(c, lambda w: w[:1]), "1 of another shape"),
    "one more": (put("state_dict", "p_ema.network.\x1b[2Jmore", torch.zeros(1)), "1 unexpected"),
    "a list": (lambda c: [1, 2], "no known layout"),
    "a negative step": (put("global_step", -1), "step -1"),
    "a deep network": (put("config", "network", "num_res_blocks", 100_000), "at most 100"),
    "a wide network": (put("config", "network", "channels", 65_536), "of another shape"),
    "many levels": (put("config", "network", "channel_mult", [1] * 1000), "1 to 12 whole numbers"),
    "many timesteps": (put("config", "schedule", "T", 10**10), "at most 1000000"),
    "a name that moves the cursor": (put("config", "name", "\x1b[2J"), "can name a folder"),
    "a name that leads away": (put("config", "name", "../../x"), "can name a folder"),
    "no sections": (put("config", {}), "has no section"),
    "a word for a section": (put("config", "variance", "_target_"), "no section 'variance'"),
    "nothing for a section": (put("config", "weighting", None), "no section 'weighting'"),
    "numbers for sections": (put("config", "evaluation", "bits_per_dim", 0), "settings of its own"),
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_what_is_no_model_is_not_evaluated(case, run_folder, workspace):
    edit, message = NOT_WEIGHTS[case]
    edited(run_folder, edit)
    before = sorted(workspace.rglob("*"))
    with pytest.raises(RequestError, match=message) as caught:
        evaluate(["ckpt=run"])
    assert "\n" not in str(caught.value)
    assert sorted(workspace.rglob("*")) == before


def of_muon(content):
    """The state of the last weight, which is a hidden matrix."""
    return content["optimizer_states"][0]["state"][max(content["optimizer_states"][0]["state"])]


NO_TRAINING = {
    "moments of another shape": (put("optimizer_states", 0, "state", 3, "exp_avg", torch.zeros(1)), "has shape"),
    "moments that are not finite": (
        lambda c: put("exp_avg_sq", torch.full_like(c["optimizer_states"][0]["state"][3]["exp_avg_sq"], float("nan")))(
            c["optimizer_states"][0]["state"][3]
        ),
        "not finite",
    ),
    "moments missing": (lambda c: c["optimizer_states"][0]["state"].pop(3) and None, "moments of other weights"),
    "moments before the first step": (put("global_step", 0), "moments of other weights"),
    "no moments": (put("optimizer_states", 0, "state", {}), "moments of other weights"),
    "steps that are text": (put("optimizer_states", 0, "state", 3, "step", "x"), "cannot go on"),
    "momentum of another shape": (lambda c: put("exp_avg", torch.zeros(1))(of_muon(c)), "has shape"),
    "momentum that is not finite": (
        lambda c: put("exp_avg", torch.full_like(of_muon(c)["exp_avg"], float("inf")))(of_muon(c)),
        "not finite",
    ),
    "momentum missing": (lambda c: of_muon(c).pop("exp_avg") is None or None, "cannot go on"),
    "squares where there are none": (lambda c: put("exp_avg_sq", torch.zeros(1))(of_muon(c)), "steps are of the wrong"),
    "another momentum": (put("optimizer_states", 0, "param_groups", 1, "momentum", 0.9), "another momentum than"),
    "a matrix fewer": (lambda c: c["optimizer_states"][0]["param_groups"][1]["params"].pop() and None, "other weights"),
    "one group of weights": (lambda c: c["optimizer_states"][0]["param_groups"].pop() and None, "other weights"),
    "a schedule of one rate": (put("lr_schedulers", 0, "base_lrs", [1e-3]), "schedule of the learning rate"),
    "no optimizer": (put("optimizer_states", []), "cannot go on"),
    "two optimizers": (lambda c: c["optimizer_states"].append(c["optimizer_states"][0]), "cannot go on"),
    "groups that are none": (put("optimizer_states", 0, "param_groups", [1]), "cannot go on"),
    "a group of other weights": (put("optimizer_states", 0, "param_groups", 0, "params", [0]), "other weights"),
    "a rate that is text": (put("optimizer_states", 0, "param_groups", 0, "lr", "x"), "wrong kind"),
    "an unknown setting": (put("optimizer_states", 0, "param_groups", 0, "more", 1), "another more than"),
    "betas that are text": (put("optimizer_states", 0, "param_groups", 0, "betas", ("a", "b")), "another betas than"),
    "uphill": (put("optimizer_states", 0, "param_groups", 0, "maximize", True), "another maximize than"),
    "another Adam": (put("optimizer_states", 0, "param_groups", 0, "amsgrad", True), "another amsgrad than"),
    "a rate that is no number": (put("lr_schedulers", 0, "base_lrs", [float("nan")]), "wrong kind"),
    "steps that are no number": (
        put("optimizer_states", 0, "state", 3, "step", torch.tensor(float("nan"))),
        "steps are of the wrong kind",
    ),
    "a count that is text": (put("lr_schedulers", 0, "_step_count", "x"), "wrong kind"),
    "a schedule with another step": (put("lr_schedulers", 0, "step", "x"), "wrong kind"),
    "no schedule": (put("lr_schedulers", []), "cannot go on"),
    "another schedule": (put("lr_schedulers", [{"a": 1}]), "cannot go on"),
    "a schedule that calls": (put("lr_schedulers", 0, "lr_lambdas", [{"a": 1}]), "wrong kind"),
    "another rate": (put("lr_schedulers", 0, "base_lrs", [0.5, 0.02]), "rates are other ones"),
    "another rate at first": (put("optimizer_states", 0, "param_groups", 0, "initial_lr", 0.5), "rates are other ones"),
    "a rate beyond its own": (put("optimizer_states", 0, "param_groups", 0, "lr", 0.5), "rates are other ones"),
    "a rate that no float holds": (put("optimizer_states", 0, "param_groups", 0, "lr", 10**400), "wrong kind"),
    "rates that no float holds": (put("lr_schedulers", 0, "base_lrs", [10**400, 10**400]), "wrong kind"),
    "a count that no float holds": (put("lr_schedulers", 0, "last_epoch", 10**400), "wrong kind"),
    "warmed up anew": (put("lr_schedulers", 0, "last_epoch", 0), "wrong kind"),
    "a setting fewer": (lambda c: c["optimizer_states"][0]["param_groups"][0].pop("betas") and None, "another betas"),
    "steps as digits": (put("optimizer_states", 0, "state", 3, "step", "3"), "steps are of the wrong"),
    "steps that are nowhere": (
        put("optimizer_states", 0, "state", 3, "step", torch.zeros((), device="meta")),
        "steps are of the wrong",
    ),
    "negative squares": (
        lambda c: c["optimizer_states"][0]["state"][3]["exp_avg_sq"].fill_(-1) is c or None,
        "negative",
    ),
    "raw weights that are text": (lambda c: raw(c, lambda w: "weights"), "no tensor"),
    "raw weights that are nowhere": (lambda c: raw(c, lambda w: w.to("meta")), "no tensor"),
    "raw weights that are sparse": (lambda c: raw(c, lambda w: w.to_sparse()), "real numbers"),
    "raw weights that are no numbers": (lambda c: raw(c, lambda w: w.fill_(float("nan"))), "not finite"),
    "raw weights that are complex": (lambda c: raw(c, lambda w: w.to(torch.complex64)), "real numbers"),
    "raw weights of another shape": (
        lambda c: c["state_dict"].update({next(k for k in c["state_dict"] if k.startswith("p.")): torch.zeros(3)}),
        "of another shape",
    ),
    "a weight more": (put("state_dict", "more", torch.zeros(1)), "1 unexpected"),
}


@pytest.fixture(scope="module")
def about_to_train(trained_run):
    """The module and the images with which a run goes on."""
    config = OmegaConf.create(checkpoint.load(trained_run).config)
    images = build.dataset(config)
    return build.module(config, images), images


@pytest.mark.parametrize("case", NO_TRAINING)
def test_what_cannot_be_trained_on_is_refused(case, run_folder, about_to_train):
    edit, message = NO_TRAINING[case]
    edited(run_folder, edit)
    with pytest.raises(ValueError, match=message):
        build.check_resumed(checkpoint.newest(run_folder), *about_to_train)


@pytest.mark.parametrize("case", ["moments missing", "a rate beyond its own", "raw weights that are text"])
def test_what_cannot_be_trained_on_is_not(case, run_folder):
    edit, message = NO_TRAINING[case]
    edited(run_folder, edit)
    before = (run_folder / "metrics.csv").read_bytes()
    with pytest.raises(RequestError, match=message):
        train(["resume=run", "max_steps=8"])
    assert (run_folder / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        put("pytorch-lightning_version", "x.y"),
        lambda c: c.pop("pytorch-lightning_version") and None,
        put("more", {"a": 1}),
        put("callbacks", 3),
        put("callbacks", {"ModelCheckpoint": {"best_model_path": "/etc"}}),
        put("loops", "x"),
        put("epoch", "x"),
        put("hyper_parameters", {"a": 1}),
    ],
)
def test_what_training_does_not_need_does_no_harm(edit, run_folder):
    edited(run_folder, edit)
    train(["resume=run", "max_steps=8"])
    assert checkpoint.load(run_folder).step == 8


def test_a_file_of_old_torch_is_said_to_be_one(workspace):
    torch.save({"a": 1}, "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(RequestError, match=r"before version 1\.6: if you trust it, save it anew"):
        evaluate(["ckpt=old.pt"])


def test_a_pipe_is_no_checkpoint(workspace):
    os.mkfifo("pipe.ckpt")
    with pytest.raises(RequestError, match="neither a file nor a folder"):
        evaluate(["ckpt=pipe.ckpt"])


@pytest.mark.parametrize(
    "metadata",
    [{"config": "{", "global_step": "1"}, {"config": "[1]", "global_step": "1"}, {"config": "{}", "global_step": "x"},
     {"config": "[" * 10**5, "global_step": "1"}],
)  # fmt: skip
def test_an_exported_file_with_a_damaged_description(metadata, workspace):
    save_file({"a": torch.zeros(1)}, "model.safetensors", metadata)
    with pytest.raises(RequestError, match="whose description cannot be read"):
        evaluate(["ckpt=model.safetensors"])


# --- diffusers folders -----------------------------------------------------------------------------------------------

UNET = {
    "block_out_channels": [8, 8], "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2,
    "attention_head_dim": None, "sample_size": 8, "in_channels": 1, "norm_num_groups": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("unet", "scheduler", "message"),
    [
        ({"block_out_channels": []}, {}, "cannot be read"),
        ({"block_out_channels": [0, 0]}, {}, "cannot be read"),
        ({"block_out_channels": [8192, 8192]}, {}, "missing|another shape"),
        ({"layers_per_block": 10**5}, {}, "at most 100"),
        ({"norm_eps": "small"}, {}, "is no number"),
        ({"attention_head_dim": "x"}, {}, "is no number"),
        ({"freq_shift": [1]}, {}, "is no number"),
        ({"norm_num_groups": "${oc.env:HOME}"}, {}, "no plain value"),
        ({}, {"num_train_timesteps": 10**12}, "at most 1000000"),
        ({}, {"beta_start": {"a": 1}}, "no plain value"),
        ({"sample_size": "x"}, {}, "cannot be read|but"),
    ],
)
def test_a_diffusers_folder_that_cannot_be(unet, scheduler, message, workspace):
    (workspace / "config.json").write_text(json.dumps({**UNET, **unet}))
    (workspace / "scheduler_config.json").write_text(json.dumps(scheduler))
    save_file({"conv_in.weight": torch.zeros(8, 1, 3, 3)}, "diffusion_pytorch_model.safetensors")
    with pytest.raises(RequestError, match=message):
        evaluate(["ckpt=.", "recipe=digits", "evaluation.metrics=[fid]"])


def test_a_configuration_of_gigabytes_is_not_read(workspace):
    with open("config.json", "wb") as file:
        file.truncate(3 << 30)
    (workspace / "scheduler_config.json").write_text("{}")
    with pytest.raises(RequestError, match="no file of a configuration's size"):
        evaluate(["ckpt=."])


def test_weights_that_are_a_list(workspace):
    (workspace / "config.json").write_text(json.dumps(UNET))
    (workspace / "scheduler_config.json").write_text("{}")
    torch.save([1, 2], "diffusion_pytorch_model.bin")
    with pytest.raises(RequestError, match="holds a list, not weights by name"):
        evaluate(["ckpt=."])


def test_a_name_of_two_lines_is_said_in_one(workspace):
    (workspace / "two\nlines").mkdir()
    for name, said in (("two\nlines", "two lines is not a run folder"), ("no\nrun", "no run does not exist")):
        with pytest.raises(RequestError, match=f"^{said}"):
            evaluate(quote_paths([f"ckpt={name}"]))
