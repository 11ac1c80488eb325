"""A file's configuration is data: where to read, write, log and compute, and consents, are not the file's to say."""

import functools
import json
import os

import numpy as np
import pytest
import torch
import wandb
import yaml
from commands import SMALL
from PIL import Image
from safetensors.torch import save_file

import ddpm
from ddpm.checkpoints import checkpoint
from ddpm.commands.evaluate import evaluate
from ddpm.commands.train import train
from ddpm.config import origin, trust
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.roles import ROLES, is_user_only
from ddpm.config.saved import plain
from ddpm.sweep import sweep
from ddpm.sweep.work import WORKS


class Asked(Exception):
    """W&B would have been started."""


def changed(run, **settings):
    """The run with other settings in its checkpoint and config.yaml, by their dotted keys."""
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    tree = yaml.safe_load((run / "config.yaml").read_text())
    for config in (content["config"], tree):
        for key, value in settings.items():
            *parents, leaf = key.split("__")
            section = config
            for name in parents:
                section = section.setdefault(name, {})
            section[leaf] = value
    torch.save(content, file)
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    return run


# --- the signature ---------------------------------------------------------------------------------------------------


def test_a_run_of_ones_own_is_followed(run_folder, workspace):
    saved = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["config"]
    assert origin.is_own(saved)
    assert origin.is_own(yaml.safe_load((run_folder / "config.yaml").read_text()))
    assert trust.of_file(saved, run_folder) == {key: value for key, value in saved.items() if key != "signature"}


@pytest.mark.parametrize(
    "forged", [{}, {"signature": None}, {"signature": True}, {"signature": "0" * 64}, {"signature": "é"}]
)
def test_what_carries_no_valid_signature_is_not_ones_own(forged):
    assert not origin.is_own({"data": {"root": "x"}, **forged})


def test_a_change_breaks_the_signature():
    config = origin.signed(plain(compose(SMALL)))
    assert origin.is_own(config)
    assert origin.is_own(json.loads(json.dumps(config)))
    for key in config:
        assert not origin.is_own({**config, key: "another"})
    assert not origin.is_own({**config, "more": 1})
    assert origin.is_own(dict(reversed(config.items())))  # a file may order its keys otherwise


def test_another_user_has_another_key(tmp_path, monkeypatch):
    config = origin.signed({"a": 1})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert not origin.is_own(config)
    assert origin.is_own(origin.signed(config))
    key = tmp_path / "ddpm" / "key"
    assert key.stat().st_mode & 0o077 == 0
    assert [path.name for path in key.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_with_a_damaged_key_nothing_is_signed(key, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "ddpm").mkdir()
    (tmp_path / "ddpm" / "key").write_bytes(key)
    assert origin.signed({"a": 1}) == {"a": 1}
    assert (tmp_path / "ddpm" / "key").read_bytes() == key


def test_without_a_home_nothing_is_signed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert "signature" not in origin.signed({"a": 1})
    assert not origin.is_own({"a": 1})


# --- what is not followed --------------------------------------------------------------------------------------------


@pytest.mark.long
def test_every_key_that_is_the_users_alone_has_confs_value():
    """Whatever a file says of them, however it nests them."""
    known = plain(compose([]))
    keys = [key for key in ROLES if is_user_only(key)]
    assert {"data.root", "features.trust", "logger", "trainer", "out", "hydra"} <= {*keys}
    for value in ("/etc", {"a": {"b": "/etc"}}, 10**9, ["/etc"]):
        hostile = plain(compose([]))
        for key in keys:
            *parents, leaf = key.split(".")
            section = hostile
            for name in parents:
                section = section.setdefault(name, {})
            section[leaf] = value
        followed = json.dumps(trust.with_defaults(hostile))
        assert "/etc" not in followed
        assert str(10**9) not in followed
        for name in ("network", "schedule", "evaluation", "optimizer", "choices"):
            assert json.loads(followed)[name] == json.loads(json.dumps(known[name]))


OURS = {"_target_": "ddpm.loggers.weights_and_biases.WandB", "project": "ddpm", "checkpoint": False}


def test_of_loggers_only_the_names():
    hostile = plain(compose([]))
    hostile["logger"] = {"wandb": {"config": "/etc/passwd", "entity": "evil", "dir": "/tmp"}, "of_theirs": {"a": 1}}
    assert trust.with_defaults(hostile)["logger"] == {"wandb": OURS}


@pytest.mark.parametrize("bomb", ["shared lists", "many", "deep", "long", "object"])
def test_what_unfolds_is_refused_before_it_does(bomb):
    shared: object = "x"
    if bomb == "shared lists":
        for _ in range(40):
            shared = [shared] * 10
    if bomb == "deep":  # and few
        for _ in range(trust.DEEPEST):
            shared = {"a": shared}
    many = dict.fromkeys(range(trust.MAX_VALUES))
    shared = {"many": many, "long": "x" * 10**6, "object": torch.zeros(1)}.get(bomb, shared)
    with pytest.raises(ValueError, match="the saved configuration"):
        trust.of_file({"data": shared}, "file")


def test_the_warning_is_not_the_files_to_write():
    followed = trust.of_file({**trust.with_defaults(plain(compose([]))), trust.NOT_FOLLOWED: "all is well"}, "file")
    assert trust.NOT_FOLLOWED not in followed


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_data_are_kept_where_the_user_says(run_folder, workspace, capsys):
    changed(run_folder, data__root=str(workspace / "elsewhere"))
    evaluate(["ckpt=run", "evaluation.metrics=[fid]"])
    assert not (workspace / "elsewhere").exists()
    printed = capsys.readouterr().err
    assert f"data.root={workspace / 'elsewhere'}" in printed
    assert "is not followed" in printed


@pytest.mark.long
def test_pictures_of_ones_own_are_found_again_and_those_of_a_stranger_are_not(workspace, tmp_path_factory, capsys):
    pictures, random = workspace / "pictures", np.random.default_rng(0)
    pictures.mkdir()
    for k in range(60):
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(pictures / f"{k}.png")
    train([*SMALL, "data=folder", "data.path=pictures", "data.size=[8,8]", "data.channels=1", "data.root=cache",
                 "logger=csv", "out=run", "loader.batch_size=16"])  # fmt: skip
    ask = ["ckpt=run", "evaluation.metrics=[bits_per_dim]"]
    evaluate(ask)
    caches, elsewhere = sorted((workspace / "cache").rglob("*")), tmp_path_factory.mktemp("elsewhere")
    changed(workspace / "run", data__root=str(elsewhere))
    with pytest.raises(RequestError, match=r"data\.path=FOLDER"):
        evaluate(ask)
    assert f"data.root={elsewhere}" in capsys.readouterr().err
    evaluate([*ask, "data.path=pictures", "data.root=cache"])
    assert list(elsewhere.iterdir()) == []
    assert sorted((workspace / "cache").rglob("*")) == caches


@pytest.mark.long
@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_loggers_are_not_obeyed(command, run_folder, workspace, monkeypatch):
    (workspace / "secret.yaml").write_text("password: 1234\n")
    hostile = {
        "config": str(workspace / "secret.yaml"),
        "entity": "evil",
        "dir": str(workspace / "there"),
        "mode": "online",
    }
    changed(run_folder, logger={"wandb": hostile}, choices__logger="wandb", max_steps=8)
    asked = {}

    @functools.wraps(wandb.init)
    def init(**settings):
        asked.update(settings)
        raise Asked

    monkeypatch.setattr("wandb.init", init)
    with pytest.raises(Asked):
        evaluate(["ckpt=run"]) if command == "evaluate" else train(["resume=run"])
    assert asked["dir"] != str(workspace / "there")
    assert asked["mode"] == "offline"
    assert "entity" not in asked
    assert "1234" not in str(asked)
    assert asked["config"]["logger"] == {"wandb": OURS}


def test_consents_are_the_users(run_folder, workspace):
    """DINOv2 would be loaded through torch.hub, which runs what it finds there."""
    features = {
        "_target_": "ddpm.metrics.features.TorchFidelity",
        "name": "dinov2-vit-s-14",
        "trust": True,
        "weights": None,
    }
    changed(run_folder, features=features, choices__features="inception")
    with pytest.raises(RequestError, match=r"features\.trust=true"):
        evaluate(["ckpt=run", "evaluation.metrics=[fid]"])


@pytest.mark.long
def test_devices_are_the_users(run_folder, workspace):
    changed(run_folder, trainer__devices=10**9, trainer__num_nodes=10**9)
    evaluate(["ckpt=run", "evaluation.metrics=[fid]"])
    train(["resume=run", "evaluate_after=false"])


@pytest.mark.parametrize("key", ["stated", "assumed"])
@pytest.mark.long
def test_only_a_converter_states_what_a_file_is(key, run_folder, workspace, monkeypatch, capsys):
    """The way of other codebases' files reads overrides, in which an environment variable would be resolved."""
    monkeypatch.setenv("SECRET", "tell-nobody")
    changed(run_folder, foreign="diffusers", stated=["recipe=digits", "name=${oc.env:SECRET}"], assumed=[])
    assert ddpm.load("run").q.T == 20  # by its own configuration
    changed(run_folder, name="${oc.env:SECRET}")
    with pytest.raises(RequestError) as caught:
        evaluate(["ckpt=run", "evaluation.metrics=[fid]"])
    assert "tell-nobody" not in str(caught.value) + capsys.readouterr().out
    assert all(b"tell-nobody" not in file.read_bytes() for file in workspace.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    "value", ["${oc.env:SECRET}", "1000 data.root=/x", "[${oc.env:SECRET}]", "{a: 1}", "1000\n", "'a'"]
)
def test_what_a_diffusers_folder_says_is_quoted(value, workspace, monkeypatch):
    monkeypatch.setenv("SECRET", "tell-nobody")
    ddpm_config = {
        "block_out_channels": [8, 8], "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2,
        "attention_head_dim": None, "sample_size": 8, "in_channels": 1,
    }  # fmt: skip
    (workspace / "config.json").write_text(json.dumps(ddpm_config))
    (workspace / "scheduler_config.json").write_text(json.dumps({"num_train_timesteps": value}))
    save_file({"conv_in.weight": torch.zeros(8, 1, 3, 3)}, workspace / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="is a diffusers folder, but it says") as caught:
        checkpoint.load(workspace)
    assert "tell-nobody" not in str(caught.value)


@pytest.mark.long
def test_an_export_says_nothing_of_this_machine(run_folder, workspace):
    from ddpm.commands.export import export

    file = run_folder / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    content["config"]["logger"] = {"wandb": {"entity": "my-team", "project": "my-project"}}
    content["config"] = origin.signed(content["config"])
    torch.save(content, file)
    export(["ckpt=run", "to=out", "format=safetensors"])
    exported = (workspace / "out/model.safetensors").read_bytes()
    assert all(word not in exported for word in (b"my-team", b"my-project", b"signature", str(workspace).encode()))
    assert ddpm.load("out").q.T == 20


# --- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "data.root=/elsewhere",
        "logger.wandb.entity=evil",
        "hydra.launcher.setup=[evil]",
        "hydra/launcher=submitit_slurm",
        "++trainer.devices=1000000000",
        "name=${oc.env:SECRET}",
        "features.trust=true",
    ],
)
def test_a_sweep_from_elsewhere_does_not_say_where(word, workspace):
    (workspace / "sweep").mkdir()
    plan = {"overrides": [*SMALL, "seed=1,2", word], "varying": ["seed"]}
    (workspace / "sweep" / "sweep.json").write_text(json.dumps(plan))
    with pytest.raises(RequestError, match="was not written by you, or has been changed, and says"):
        sweep._read(["resume=sweep"], WORKS["train"])
    (workspace / "sweep" / "sweep.json").write_text(json.dumps(origin.signed(plan)))
    if "slurm" not in word:
        assert word in [*(read := sweep._read(["resume=sweep"], WORKS["train"])).overrides, *read.engines.settings]


# --- links -----------------------------------------------------------------------------------------------------------

PARTS = [
    "results.json", ".results.json.part", "samples.png", "reverse.png", "bound.csv", "metrics.csv", "config.yaml.part",
    "evaluations", "figures", ".unfinished", "checkpoints/previous.ckpt", "wandb", "tensorboard", "images", ".lock",
    "figures/samples.png", "evaluations/deep/in/it/samples.png",
]  # fmt: skip
COMMANDS = {
    "evaluate": lambda: evaluate(["ckpt=run", "evaluation.metrics=[fid]"]),
    "figures": lambda: evaluate(["ckpt=run", "figures=[samples]"]),
    "resume": lambda: train(["resume=run", "max_steps=8"]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.long
def test_nothing_is_written_through_a_link(part, command, run_folder, tmp_path_factory):
    victim = tmp_path_factory.mktemp("victim")
    (victim / "file").write_text("precious")
    target = victim if "." not in part.lstrip(".") and part != ".lock" else victim / "file"
    link = run_folder / part
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    with pytest.raises(RequestError, match="leads out of"):
        COMMANDS[command]()
    assert (victim / "file").read_text() == "precious"
    assert [path.name for path in victim.iterdir()] == ["file"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_in_the_place_of_a_file_does_not_hang(command, run_folder):
    os.mkfifo(run_folder / "more.csv")
    with pytest.raises(RequestError, match="neither a file nor a folder"):
        COMMANDS[command]()


@pytest.mark.parametrize("command", ["evaluate", "figures"])
def test_an_output_folder_with_a_hidden_link_is_refused(command, run_folder, workspace, tmp_path_factory):
    victim = tmp_path_factory.mktemp("victim")
    (workspace / "out").mkdir()
    (workspace / "out" / ".unfinished").symlink_to(victim)
    extra = {"evaluate": "evaluation.metrics=[fid]", "figures": "figures=[samples]"}[command]
    with pytest.raises(RequestError, match="leads out of"):
        evaluate(["ckpt=run", extra, "out=out"])
    assert list(victim.iterdir()) == []
