"""What is exported is what was trained: the same function, the same samples, in diffusers and back."""

import errno
import json
import os

import pytest
import torch
from commands import run
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from random_checkpoint import saved
from safetensors.torch import load_file

import ddpm
from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.checkpoints.export import scheduler_config
from ddpm.commands.export import export
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.grammar import quote_paths
from ddpm.config.groups import options_of
from ddpm.diffusion.condition import DROPPED, Condition
from ddpm.evaluation.protocol import digest_of_weights

SMALL = [
    "recipe=cifar10",
    "network.channels=32",
    "network.num_res_blocks=1",
    "schedule.T=8",
]
RESCALED = ["schedule.T=25", "schedule.rescale=true"]


def exported(*overrides):
    """What diffusers makes of the folder `out`, without its progress bar."""
    export(list(overrides))
    pipeline = DDPMPipeline.from_pretrained("out")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    "overrides",
    [
        SMALL,
        [*SMALL, "variance=fixed_small", "prediction=v", "schedule=cosine", "schedule.T=12"],
        [*SMALL, "variance=learned_range", "objective=hybrid", "prediction=x0", "schedule=constant"],
        [*SMALL, "network=iddpm", "network.channel_mult=[1,1]", "schedule=quadratic", *RESCALED],
        ["recipe=digits", "sampler.steps=5", "schedule.T=20", "schedule=sigmoid"],
    ],
)
def test_diffusers_draws_our_samples_from_the_same_noise(workspace, overrides):
    saved("run.ckpt", *overrides, gain=0.3)
    pipeline = exported("ckpt=run.ckpt", "to=out")
    p = ddpm.load("run.ckpt")
    shape = (2, 1, 8, 8) if overrides[0] == "recipe=digits" else (2, 3, 32, 32)
    arguments = {"batch_size": 2, "num_inference_steps": p.q.T, "output_type": "np"}
    theirs = torch.from_numpy(pipeline(generator=torch.Generator().manual_seed(3), **arguments).images)
    g = torch.Generator().manual_seed(3)
    *_, last = ddpm.Ancestral()(p, torch.randn(shape, generator=g), g)
    ours = (last.x_t / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-3  # theirs computes its coefficients in float32
    if "schedule=constant" not in overrides:
        back = ddpm.load("out", "sampler.steps=5")
        for key, value in p.network.state_dict().items():
            assert torch.equal(value, back.network.state_dict()[key])
        torch.testing.assert_close(back.q.alpha_bar, p.q.alpha_bar)


@pytest.mark.parametrize(
    "settings",
    [
        ["network.norm_eps=0.01"],
        ["network.heads=4", "network.channel_mult=[1,2,2]", "network.attention_resolutions=[8]"],
        ["network.head_channels=8", "network.channel_mult=[1,2]", "network.attention_resolutions=[32,16]"],
        ["network.heads=1", "network.channel_mult=[1,2]", "network.attention_resolutions=[32,16]"],
    ],
    ids=" ".join,
)
def test_a_network_s_settings_are_theirs(workspace, settings):
    saved("run.ckpt", *SMALL, "network=iddpm", "network.dropout=0.0", *settings)
    unet, p = exported("ckpt=run.ckpt", "to=out").unet, ddpm.load("run.ckpt")
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 19])
    with torch.no_grad():
        want = unet(x, t).sample
        assert (p.network(x, t) - want).norm() < 1e-5 * want.norm()


def test_a_network_of_oblong_images_attends_at_the_heights_that_it_says(workspace):
    """Its dropout goes along, for whoever trains it on."""
    saved("run.ckpt", *SMALL, "recipe=lsun_church", "data.size=[32,16]", "network.channel_mult=[1,2]",
          "network.num_res_blocks=1", "network.attention_resolutions=[16]", "network.dropout=0.25")  # fmt: skip
    unet, p = exported("ckpt=run.ckpt", "to=out").unet, ddpm.load("run.ckpt")
    assert unet.config.sample_size == [32, 16]
    assert {module.p for module in unet.modules() if isinstance(module, torch.nn.Dropout) and module.p} == {0.25}
    x, t = torch.randn(2, 3, 32, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 7])
    with torch.no_grad():
        want = unet(x, t).sample
        assert (p.network(x, t) - want).norm() < 1e-5 * want.norm()
        back = ddpm.load("out", "recipe=lsun_church", "data.size=[32,16]", "sampler.steps=5")
        assert torch.equal(back.network(x, t), p.network(x, t))


@pytest.mark.slow
def test_the_round_trip_at_full_size(workspace):
    saved("run.ckpt", "recipe=cifar10")
    theirs, p = exported("ckpt=run.ckpt", "to=out").unet, ddpm.load("run.ckpt")
    fresh = UNet2DModel.from_config(theirs.config)
    fresh.load_state_dict(load_file("out/unet/diffusion_pytorch_model.safetensors"), strict=True)
    assert len(fresh.state_dict()) == 328
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([7, 999])
    with torch.no_grad():
        want = theirs(x, t).sample
        assert want.std() > 0.1
        for ours in (p, ddpm.load("out")):
            assert (ours.network(x, t) - want).norm() < 1e-5 * want.norm()


def test_classes_and_one_more_for_none(workspace):
    saved("run.ckpt", *SMALL, "condition=label")
    pipeline, p = exported("ckpt=run.ckpt", "to=out"), ddpm.load("run.ckpt")
    x, t = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 7, 19])
    with torch.no_grad():
        want = pipeline.unet(x, t, class_labels=torch.tensor([0, 9, 10])).sample
        found = p.network(x, t, Condition(torch.tensor([0, 9, DROPPED])))
        assert (found - want).norm() < 1e-5 * want.norm()
        again = ddpm.load("out", "sampler.steps=5").network(x, t, Condition(torch.tensor([0, 9, 10])))
        assert (again - want).norm() < 1e-5 * want.norm()


def test_classes_alone_where_none_was_dropped(workspace):
    saved("run.ckpt", *SMALL, "condition=label", "condition.drop=0.0")
    unet, p = exported("ckpt=run.ckpt", "to=out").unet, ddpm.load("run.ckpt")
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 7])
    labels = torch.tensor([0, 9])
    with torch.no_grad():
        want = unet(x, t, class_labels=labels).sample
        assert (p.network(x, t, Condition(labels)) - want).norm() < 1e-5 * want.norm()
    assert unet.class_embedding.weight.shape[0] == 10


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"schedule={name}"] for name in options_of("schedule")),
        ["schedule=cosine", "schedule.snr_scale=0.25"],
        ["schedule=cosine", "+schedule.offset=0.02"],
        ["schedule=cosine", "+schedule.max_beta=0.5"],
    ],
    ids=" ".join,
)
def test_every_schedule_is_theirs(overrides):
    config = compose([*overrides, "schedule.T=50", "sampler.steps=5"])
    p = build.reverse_process(config, build.dataset(config))
    theirs = DDPMScheduler.from_config(scheduler_config(p, config))
    torch.testing.assert_close(theirs.alphas_cumprod, p.q.alpha_bar[1:].float(), rtol=1e-4, atol=1e-7)


def test_a_schedule_of_one_s_own_is_a_list_whatever_its_name():
    config = compose(["schedule=cosine", "schedule.snr_scale=0.25", "schedule.T=50", "sampler.steps=5"])
    p = build.reverse_process(config, build.dataset(config))
    config.schedule._target_ = "my_package.linear"
    theirs = DDPMScheduler.from_config(scheduler_config(p, config))
    torch.testing.assert_close(theirs.alphas_cumprod, p.q.alpha_bar[1:].float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", ["false", "true"], ids="channels_last={}".format)
def test_safetensors_are_a_checkpoint(workspace, layout):
    saved("run.ckpt", *SMALL)
    export(["ckpt=run.ckpt", "to=out", "format=safetensors", f"trainer.channels_last={layout}"])
    ours, back = ddpm.load("run.ckpt"), ddpm.load("out")
    for key, value in ours.network.state_dict().items():
        assert torch.equal(value, back.network.state_dict()[key])
    content = checkpoint.load("out/model.safetensors")
    assert (content.step, content.name, content.config["schedule"]["T"]) == (7, "out", 8)
    assert "run.ckpt" not in json.dumps(content.config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prediction=mu"], "diffusers has no prediction=mu"),
        (["variance=learned", "objective=vlb"], "diffusers has no variance=learned"),
        (["network=iddpm", "network.attention_resolutions=[32,16]"], "heads of one size, and these have 8 and 16"),
        (
            ["network=iddpm", "network.channel_mult=[1,2]", "network.attention_resolutions=[32]"],
            "heads of one size, and these have 8 and 16",  # that of the middle, which is always there
        ),
        (["network.channel_mult=[2,2]"], "no network with channel_mult=[2, 2]"),
        (["network.patch_size=2"], "no network with patch_size=2"),
        (["network=iddpm", "network.time_scale=0.25"], "no network with time_scale=0.25"),
        (["network=iddpm", "+network.resblock_updown=true"], "no UNet2DModel of diffusers has resblock_updown=true"),
        (["condition=image"], "no pipeline for a network that is told an image"),
    ],
)
def test_what_diffusers_does_not_have_is_refused(workspace, overrides, message):
    saved("run.ckpt", *SMALL, *overrides)
    with pytest.raises(RequestError, match="use format=safetensors") as refusal:
        export(["ckpt=run.ckpt", "to=out"])
    assert message in str(refusal.value)
    assert not (workspace / "out").exists()


def test_the_card_holds_the_measurements_of_this_checkpoint(workspace):
    run_folder = workspace / "run"
    (run_folder / "checkpoints").mkdir(parents=True)
    (run_folder / "config.yaml").touch()
    saved(run_folder / "checkpoints" / "last.ckpt", "recipe=digits")
    export(["ckpt=run", "to=before"])
    assert "Not evaluated." in (workspace / "before" / "README.md").read_text()
    metrics = {"fid": {"value": 12.5, "n": 1500, "reference": "test", "reference_n": 297}}
    digest = digest_of_weights(ddpm.load("run"))
    results = {"metrics": metrics, "protocol": {"fingerprint": "abc"}, "weights_sha256": digest}
    (run_folder / "results.json").write_text(json.dumps(results))
    export(["ckpt=run", "to=after"])
    card = (workspace / "after" / "README.md").read_text()
    assert "| fid | 12.5000 | 1,500 images against 297 of test |" in card
    assert '"fingerprint": "abc"' in card
    (run_folder / "results.json").write_text(json.dumps({**results, "weights_sha256": digest[::-1]}))
    export(["ckpt=run", "to=other"])
    assert "Not evaluated." in (workspace / "other" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to=out"], "ckpt= is missing"),
        (["ckpt=run.ckpt"], "to= is missing"),
        (["ckpt=run.ckpt", "to=full"], "choose another folder with to="),
        (["ckpt=run.ckpt", "to=out", "format=onnx"], "format=onnx is not one of diffusers, safetensors"),
        (["ckpt=run.ckpt", "to=out", "network.channels=64"], "cannot change"),
        (["ckpt=run.ckpt", "to=out", "objective"], "KEY=VALUE"),
    ],
)
def test_a_wrong_request_writes_nothing(workspace, arguments, message):
    saved("run.ckpt", *SMALL)
    (workspace / "full").mkdir()
    (workspace / "full" / "file").touch()
    before = sorted(workspace.rglob("*"))
    with pytest.raises(RequestError, match=message):
        export(quote_paths(arguments))
    assert sorted(workspace.rglob("*")) == before


@pytest.mark.parametrize("layout", ["diffusers", "safetensors"])
def test_a_full_disk_leaves_no_half_of_the_weights(workspace, layout, monkeypatch):
    def full(handle):
        if "safetensors" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")

    saved("run.ckpt", *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            export(["ckpt=run.ckpt", "to=out", f"format={layout}"])
    assert not [path for path in (workspace / "out").rglob("*") if "safetensors" in path.name]
    export(["ckpt=run.ckpt", "to=out", f"format={layout}"])  # nothing is in its way


def test_the_command(workspace):
    saved("run.ckpt", *SMALL)
    done = run("-m", "ddpm", "export", "ckpt=run.ckpt", "to=a folder, of = mine", cwd=workspace)
    assert done.stdout == f"exported: {workspace / 'a folder, of = mine'}\n"
    assert done.stderr == ""
