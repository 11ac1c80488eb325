"""Checkpoints of other codebases: the same function after reading as before saving, every key used; else one line."""

import inspect
import json
import math
import re
import sys
import types
from pathlib import Path

import peer_networks
import pytest
import torch
from commands import run
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from peer_networks import randomise
from safetensors.torch import save_file

import ddpm
from ddpm import build
from ddpm.checkpoints import checkpoint, converters
from ddpm.checkpoints.converters import diffusers
from ddpm.checkpoints.converters.converted import Converted, recipe
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation
from ddpm.diffusion.condition import Condition
from ddpm.networks.unet import UNet

# As google/ddpm-cifar10-32, but for the widths and the depth.
CIFAR10 = {
    "sample_size": 32,
    "block_out_channels": (32, 64, 64, 64),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
LIBRARY_DEFAULTS = {
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
    "attention_head_dim": 8,
}
GOOGLE = {"variance_type": "fixed_large"}


def batch(channels=3, height=32, width=32):
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, height, width, generator=g), torch.tensor([3, 999])


def assert_same_function(p, theirs, x, t):
    with torch.no_grad():
        want = theirs(x, t)
        want = getattr(want, "sample", want)
        assert want.std() > 0.1
        assert (p.network(x, t) - want).norm() < 1e-5 * want.norm()


def resolved(path, *overrides):
    return compose_evaluation(checkpoint.load(path).config, overrides)


@pytest.fixture(scope="module")
def unet():
    return randomise(UNet2DModel(**CIFAR10), seed=0)


@pytest.fixture
def folder(unet, tmp_path):
    """In google's layout: everything at the root."""
    unet.save_pretrained(tmp_path)
    DDPMScheduler(**GOOGLE).save_pretrained(tmp_path)
    return tmp_path


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in {**content, **changes}.items() if value != "absent"}))


# --- diffusers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("pipeline", [True, False])
def test_a_diffusers_folder_in_either_layout(unet, tmp_path, pipeline, safe):
    scheduler = DDPMScheduler(**GOOGLE, num_train_timesteps=500, beta_end=0.03)
    if pipeline:
        DDPMPipeline(unet, scheduler).save_pretrained(tmp_path, safe_serialization=safe)
    else:
        unet.save_pretrained(tmp_path, safe_serialization=safe)
        scheduler.save_pretrained(tmp_path)
    assert_same_function(ddpm.load(tmp_path), unet, *batch())
    config = resolved(tmp_path)
    assert config.choices.recipe == "cifar10"
    assert (config.choices.variance, config.schedule.T, config.schedule.beta_T) == ("fixed_large", 500, 0.03)


@pytest.mark.parametrize(
    "options",
    [
        LIBRARY_DEFAULTS,
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32},
        {"sample_size": (32, 16), "norm_num_groups": 8, "out_channels": 6},
    ],
)
def test_what_other_diffusers_networks_have(options, tmp_path):
    theirs = randomise(UNet2DModel(**{**CIFAR10, **options}), seed=2)
    variance = "learned_range" if "out_channels" in options else "fixed_small"
    DDPMPipeline(theirs, DDPMScheduler(variance_type=variance)).save_pretrained(tmp_path)
    for file, theirs_by_default in (
        ("unet/config.json", UNet2DModel),
        ("scheduler/scheduler_config.json", DDPMScheduler),
    ):
        said, defaults = json.loads((tmp_path / file).read_text()), defaults_of(theirs_by_default)
        unsaid = [key for key in said if key in defaults and said[key] == defaults[key] and key != "attention_head_dim"]
        edit(tmp_path / file, **dict.fromkeys(unsaid, "absent"))  # as whoever writes one by hand
    size = (32, 16) if "sample_size" in options else (32, 32)
    data = f"data.size=[{size[0]},{size[1]}]"
    p = ddpm.load(tmp_path, "recipe=lsun_church", data)
    assert_same_function(p, theirs, *batch(3, *size))
    assert resolved(tmp_path, "recipe=lsun_church").choices.variance == variance


def defaults_of(theirs):
    """What a class of theirs takes where its configuration leaves something out."""
    parameters = dict(inspect.signature(theirs.__init__).parameters)
    del parameters["self"]
    return {name: list(p.default) if isinstance(p.default, tuple) else p.default for name, p in parameters.items()}


NETWORK = {"_class_name": "UNet2DModel", **defaults_of(UNet2DModel), "sample_size": 32}
SCHEDULER = {"_class_name": "DDPMScheduler", **defaults_of(DDPMScheduler)}


@pytest.mark.parametrize(
    ("read", "whole", "needed"),
    [
        (
            diffusers._network,
            NETWORK,
            {"block_out_channels", "down_block_types", "up_block_types", "attention_head_dim", "sample_size"},
        ),
        (diffusers._diffusion, SCHEDULER, set()),
    ],
    ids=["network", "scheduler"],
)
def test_what_a_configuration_leaves_out_has_the_library_s_default(read, whole, needed):
    said = read(whole)
    for key in whole.keys() - needed:
        assert read({name: value for name, value in whole.items() if name != key}) == said, key


NETWORK_OTHERWISE = {
    "sample_size": 64,
    "center_input_sample": True,
    "time_embedding_type": "fourier",
    "time_embedding_dim": 64,
    "freq_shift": 1,
    "down_block_types": ["DownBlock2D"] * 4,
    "mid_block_type": None,
    "up_block_types": ["UpBlock2D"] * 4,
    "block_out_channels": [32, 64, 96, 128],
    "layers_per_block": 1,
    "mid_block_scale_factor": 2,
    "downsample_padding": 0,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "act_fn": "gelu",
    "attention_head_dim": 16,
    "norm_num_groups": 16,
    "attn_norm_num_groups": 16,
    "norm_eps": 1e-6,
    "resnet_time_scale_shift": "spatial",
    "add_attention": False,
    "class_embed_type": "identity",
    "num_class_embeds": 5,
}
# The weights tell the first two, and are turned by the third; dropout is for training; the last goes with "learned".
NETWORK_LEFT = {"in_channels", "out_channels", "flip_sin_to_cos", "dropout", "num_train_timesteps"}
SCHEDULER_OTHERWISE = {
    "num_train_timesteps": 500,
    "beta_start": 1e-3,
    "beta_end": 0.03,
    "beta_schedule": "sigmoid",
    "trained_betas": [0.1],
    "variance_type": "fixed_large",
    "clip_sample": False,
    "prediction_type": "sample",
    "thresholding": True,
    "clip_sample_range": 2.0,
    "rescale_betas_zero_snr": True,
}
# Two are of thresholding, two say which times are visited, which is our sampler's.
SCHEDULER_LEFT = {"dynamic_thresholding_ratio", "sample_max_value", "timestep_spacing", "steps_offset"}


def understood(read, config):
    """What is stated of a configuration, or why it is refused."""
    try:
        return read(config)
    except ValueError as refusal:
        return str(refusal)


@pytest.mark.parametrize(
    ("read", "whole", "otherwise", "left"),
    [
        (diffusers._network, NETWORK, NETWORK_OTHERWISE, NETWORK_LEFT),
        (diffusers._diffusion, SCHEDULER, SCHEDULER_OTHERWISE, SCHEDULER_LEFT),
    ],
    ids=["network", "scheduler"],
)
def test_every_option_of_the_library_s_is_understood_or_refused(read, whole, otherwise, left):
    assert otherwise.keys() | left == whole.keys() - {"_class_name"}
    for key, value in otherwise.items():
        found = understood(read, {**whole, key: value})
        if isinstance(found, str):
            assert key in found or "levels on the way up" in found
        else:
            assert found != read(whole), key


def test_a_log_of_a_variance_is_the_same_variance():
    assert diffusers._diffusion({**SCHEDULER, "variance_type": "fixed_small_log"}) == diffusers._diffusion(SCHEDULER)


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        ({"beta_schedule": "scaled_linear"}, "quadratic"),
        ({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}, "cosine"),
        ({"beta_schedule": "sigmoid", "prediction_type": "sample"}, "sigmoid"),
    ],
)
def test_schedules_and_predictions_of_diffusers(folder, scheduler, name):
    theirs = DDPMScheduler(**scheduler)
    theirs.save_pretrained(folder)
    config, q = resolved(folder), ddpm.load(folder).q
    assert config.choices.schedule == name
    assert config.choices.variance == "fixed_small"
    assert config.choices.prediction == {"v_prediction": "v", "sample": "x0"}.get(theirs.config.prediction_type, "eps")
    torch.testing.assert_close(q.alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-8)


def test_a_cosine_schedule_is_the_file_s_and_not_the_recipe_s(tmp_path):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    small = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (32, 32), **blocks}
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    DDPMPipeline(UNet2DModel(**{**CIFAR10, **small}), theirs).save_pretrained(tmp_path)
    torch.testing.assert_close(ddpm.load(tmp_path).q.alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-8)


def test_a_ddim_scheduler_states_no_variance(folder):
    DDIMScheduler().save_pretrained(folder)
    assert resolved(folder, "variance=fixed_small").choices.variance == "fixed_small"


def test_former_names_of_attention(unet, folder):
    formerly = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for key, value in unet.state_dict().items():
        for now, then in formerly.items():
            key = key.replace(f".{now}.", f".{then}.")
        weights[key] = value
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    assert_same_function(ddpm.load(folder), unet, *batch())


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"act_fn": "gelu"}, "act_fn='gelu', and we have silu only"),
        ("config.json", {"_class_name": "UNet2DConditionModel"}, "a UNet2DConditionModel, and only a UNet2DModel"),
        ("config.json", {"mid_block_scale_factor": 2}, "mid_block_scale_factor=2"),
        ("config.json", {"attention_head_dim": "absent"}, "does not state attention_head_dim"),
        ("config.json", {"down_block_types": ["ResnetDownsampleBlock2D"] * 4}, "has a ResnetDownsampleBlock2D"),
        ("config.json", {"up_block_types": ["UpBlock2D"] * 4}, "other levels on the way up"),
        ("config.json", {"block_out_channels": [32, 48, 64, 64]}, "not multiples of 32"),
        ("config.json", {"block_out_channels": "absent"}, "block_out_channels"),
        ("config.json", {"block_out_channels": 32}, "whose configuration cannot be read"),
        ("config.json", {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ("config.json", {"norm_eps": "1e-5"}, "its norm_eps is 1e-5, which is no number"),
        ("config.json", {"downsample_padding": 2}, "downsample_padding=2, and ours 0 or 1"),
        ("config.json", {"attn_norm_num_groups": 8}, "attn_norm_num_groups other than norm_num_groups"),
        ("config.json", {"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift=spatial"),
        ("config.json", {"sample_size": 8.0}, "sample_size is 8.0, which is no size of images"),
        ("config.json", {"sample_size": [8, True]}, "sample_size is [8, True], which is no size of images"),
        ("config.json", {"sample_size": "8"}, "sample_size is 8, which is no size of images"),
        ("config.json", {"sample_size": [8, 8, 8]}, "sample_size is [8, 8, 8], which is no size of images"),
        ("config.json", {"sample_size": -8}, "sample_size is -8, which is no size of images"),
        ("config.json", {"resnet_time_scale_shift": "scale_shift"}, "an attention without a norm"),
        ("config.json", {"num_class_embeds": "ten"}, "num_class_embeds is ten, which is no number of classes"),
        ("scheduler_config.json", {"_class_name": "PNDMScheduler"}, "a PNDMScheduler"),
        ("scheduler_config.json", {"variance_type": "fixed_large_log"}, "variance_type is fixed_large_log"),
        ("scheduler_config.json", {"variance_type": "learned"}, "variance_type is learned"),
        ("scheduler_config.json", {"clip_sample": False}, "clip_sample=False"),
        ("scheduler_config.json", {"trained_betas": [0.1] * 1000}, "trained_betas="),
        ("scheduler_config.json", {"beta_schedule": "laplace"}, "beta_schedule is laplace"),
        ("scheduler_config.json", {"prediction_type": "flow"}, "prediction_type is flow"),
    ],
)
def test_what_is_not_ours_is_refused_by_name(folder, file, changes, message):
    edit(folder / file, **changes)
    with pytest.raises(ValueError, match="is a diffusers folder") as refusal:
        checkpoint.load(folder)
    assert message in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_eps": float("nan")}, "norm_eps=nan must be a positive number"),
        ({"norm_eps": -1.0}, "norm_eps=-1.0 must be a positive number"),
        ({"freq_shift": 16}, "frequency_shift=16 must be less than half of channels=32"),
    ],
)
def test_numbers_that_make_no_network_are_refused(folder, changes, message):
    edit(folder / "config.json", **changes)
    with pytest.raises(RequestError, match=message):
        ddpm.load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_weights_are_floating_point_numbers(unet, folder, dtype):
    weights = {key: value.to(dtype) for key, value in unet.state_dict().items()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"is a tensor of .*, and weights are floating-point numbers"):
        checkpoint.load(folder)


def test_two_tensors_of_one_name_are_refused(unet, folder):
    weights = {**unet.state_dict(), "temb.dense.0.weight": torch.zeros(128, 32)}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"two of its tensors are what we call temb.dense.0.weight"):
        checkpoint.load(folder)


def test_an_index_of_a_pipeline_may_lie_beside_files_at_the_root(unet, folder):
    (folder / "model_index.json").write_text("{}")
    assert_same_function(ddpm.load(folder), unet, *batch())


def test_weights_without_a_time_embedding_lack_it(unet, folder):
    edit(folder / "config.json", flip_sin_to_cos=True)
    weights = {key: value for key, value in unet.state_dict().items() if not key.startswith("time_embedding.linear_1")}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(RequestError, match=r"2 missing \(temb\.dense\.0"):
        ddpm.load(folder)


def test_what_is_no_configuration_and_no_weights_is_refused(folder):
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save([1.0], folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.bin holds a list, not weights by name"):
        checkpoint.load(folder)
    whole = (folder / "config.json").read_text()
    for content, said in (
        ("[1]", "holds no configuration"),
        (whole + " " * (1 << 20), "size"),
        ("{", "cannot be read"),
    ):
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=rf"config\.json .*{said}"):
            checkpoint.load(folder)


@pytest.mark.parametrize("missing", ["config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"])
def test_an_incomplete_folder_is_refused(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        checkpoint.load(folder)


def test_weights_that_do_not_fit_are_counted(unet, folder):
    weights = unet.state_dict()
    weights["extra.weight"] = weights.pop("conv_in.bias")
    weights["conv_out.weight"] = torch.zeros(1, 32, 3, 3)
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(RequestError, match=r"1 missing \(conv_in.bias\); 1 unexpected \(extra.weight\)") as refusal:
        ddpm.load(folder)
    assert "1 of another shape (conv_out.weight [1, 32, 3, 3] for [3, 32, 3, 3])" in str(refusal.value)


# --- files -----------------------------------------------------------------------------------------------------------


def ours(**options):
    return randomise(UNet(3, 3, 32, (1, 2, 2, 2), 1, **options), seed=3)


def test_a_file_of_pesser_s(tmp_path):
    theirs = ours()
    torch.save(theirs.state_dict(), tmp_path / "ema_diffusion_cifar10.ckpt")
    assert_same_function(ddpm.load(tmp_path / "ema_diffusion_cifar10.ckpt"), theirs, *batch())
    config = resolved(tmp_path / "ema_diffusion_cifar10.ckpt", "variance=fixed_small")
    assert (config.choices.recipe, config.choices.variance) == ("cifar10", "fixed_small")


def test_a_training_checkpoint_of_ddim_s_gives_the_average(tmp_path):
    theirs, raw = ours(), randomise(UNet(3, 3, 32, (1, 2, 2, 2), 1), seed=4)
    states = [{f"module.{key}": value for key, value in raw.state_dict().items()}, {"state": {}}, 5, 1234]
    torch.save([*states, theirs.state_dict()], tmp_path / "ckpt.pth")
    assert_same_function(ddpm.load(tmp_path / "ckpt.pth"), theirs, *batch())
    assert checkpoint.load(tmp_path / "ckpt.pth").step == 1234


@pytest.mark.parametrize("before", [0, 3, 5])
def test_a_list_of_another_length_states_no_step_in_the_place_of_its_weights(tmp_path, before):
    theirs = ours().state_dict()
    torch.save([*[{"other": 1}, {}, 5, 1234, {}][:before], theirs], tmp_path / "ckpt.pth")
    read = checkpoint.load(tmp_path / "ckpt.pth")
    assert read.step == (1234 if before == 5 else 0)
    assert torch.equal(read.weights["conv_in.weight"], theirs["conv_in.weight"])


def test_a_file_of_weights_alone_is_taken_for_the_paper_s_model(tmp_path):
    """Whatever the recipe has; and a second output for each channel for a variance that was learned."""
    theirs = randomise(UNet(1, 2, 32, (1, 2), 1), seed=3)
    torch.save(theirs.state_dict(), tmp_path / "model.ckpt")
    config = resolved(tmp_path / "model.ckpt", "recipe=digits")
    assert config.network.groups == 32
    choices = config.choices
    assert (choices.schedule, choices.prediction, choices.variance) == ("linear", "eps", "learned")


@pytest.mark.parametrize("step", [None, "many", math.inf, math.nan, [3]])
def test_a_step_that_is_no_number_is_refused(step, tmp_path):
    theirs = ours().state_dict()
    torch.save([theirs, {}, 5, step, theirs], tmp_path / "ckpt.pth")
    with pytest.raises(ValueError, match="the step of its weights is no number: "):
        checkpoint.load(tmp_path / "ckpt.pth")


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        ({"heads": 1}, ["network.heads=1"]),
        ({"heads": 4, "scale_shift": True, "learn_sigma": True}, []),
        (
            {"heads": 2},
            ["network.heads=2", "prediction=x0", "schedule=cosine", "schedule.T=4000", "network.dropout=0.3"],
        ),
    ],
)
def test_a_file_of_improved_diffusion_s(tmp_path, options, overrides):
    theirs = randomise(peer_networks.Improved(32, (1, 2, 2, 2), 2, (1, 2), **options), seed=5)
    file = tmp_path / "ema_0.9999_500000.pt"
    torch.save(theirs.state_dict(), file)
    assert_same_function(ddpm.load(file, *overrides), theirs, *batch())
    config = resolved(file, *overrides)
    assert config.network.attention_resolutions == [16, 8]
    assert config.choices.variance == ("learned_range" if "learn_sigma" in options else "fixed_large")


def test_a_file_of_improved_diffusion_s_is_of_the_paper_s_diffusion_whatever_the_recipe_has(tmp_path):
    torch.save(peer_networks.Improved(32, (1, 2), 1, (1,)).state_dict(), tmp_path / "model.pt")
    config = resolved(tmp_path / "model.pt", "recipe=digits")
    assert config.network.groups == 32
    assert (config.choices.schedule, config.choices.prediction) == ("linear", "eps")


def test_a_class_conditional_file_of_improved_diffusion_s(tmp_path):
    theirs = randomise(peer_networks.Improved(32, (1, 2), 1, (1,), classes=7), seed=5)
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    p, (x, t), labels = ddpm.load(tmp_path / "model.pt", "network.heads=1"), batch(), torch.tensor([6, 2])
    with torch.no_grad():
        want = theirs(x, t, labels)
        assert (p.network(x, t, Condition(labels)) - want).norm() < 1e-5 * want.norm()
    config = resolved(tmp_path / "model.pt")
    assert config.condition == {"_target_": config.condition["_target_"], "classes": 7, "drop": 0.0}
    with pytest.raises(RequestError, match="guidance=cfg leads"):
        resolved(tmp_path / "model.pt", "guidance=cfg")
    with pytest.raises(RequestError, match="states condition=label"):
        resolved(tmp_path / "model.pt", "condition=none")


def test_a_class_conditional_network_of_diffusers(tmp_path):
    theirs = randomise(UNet2DModel(**CIFAR10, num_class_embeds=7), seed=5)
    theirs.save_pretrained(tmp_path / "unet")
    DDPMScheduler(**GOOGLE).save_pretrained(tmp_path / "unet")
    p, (x, t), labels = ddpm.load(tmp_path / "unet"), batch(), torch.tensor([6, 2])
    with torch.no_grad():
        want = theirs(x, t, class_labels=labels).sample
        assert (p.network(x, t, Condition(labels)) - want).norm() < 1e-5 * want.norm()
    assert resolved(tmp_path / "unet").condition.classes == 7


@pytest.mark.parametrize(("mult", "blocks", "attending"), [((1, 2, 2), 2, (1, 2)), ((1, 1, 2), 1, ())])
def test_blocks_that_resample_as_in_guided_diffusion_s_imagenet_networks(tmp_path, mult, blocks, attending):
    options = {"heads": 2, "scale_shift": True, "learn_sigma": True, "classes": 5, "updown": True}
    theirs = randomise(peer_networks.Improved(32, mult, blocks, attending, **options), seed=8)
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    own = ["network.heads=2", "recipe=cifar10"]
    p, (x, t), labels = ddpm.load(tmp_path / "model.pt", *own), batch(), torch.tensor([4, 0])
    with torch.no_grad():
        want = theirs(x, t, labels)
        assert (p.network(x, t, Condition(labels)) - want).norm() < 1e-5 * want.norm()
    config = resolved(tmp_path / "model.pt", *own)
    assert config.network.resblock_updown is True
    assert config.network.num_res_blocks == blocks
    assert list(config.network.channel_mult) == list(mult)
    with pytest.raises(RequestError, match=r"states \+*network\.resblock_updown=true|resblock_updown"):
        resolved(tmp_path / "model.pt", *own, "network.resblock_updown=false")


def test_timesteps_that_were_rescaled(tmp_path):
    theirs = randomise(peer_networks.Improved(32, (1, 2, 2, 2), 1, (1,)), seed=5)
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    p = ddpm.load(tmp_path / "model.pt", "network.heads=1", "schedule.T=4000", "network.time_scale=0.25")
    x, _ = batch()
    t = torch.tensor([12, 3996])
    with torch.no_grad():
        torch.testing.assert_close(p.network(x, t), theirs(x, t * 0.25), rtol=1e-4, atol=1e-4)


def test_heads_of_a_given_size(tmp_path):
    theirs = randomise(peer_networks.Improved(32, (1, 1), 1, (1,), heads=2), seed=6)
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    assert_same_function(ddpm.load(tmp_path / "model.pt", "network.head_channels=16"), theirs, *batch())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_blocks.2.0.op.weight": None, "input_blocks.2.0.op.bias": None}, "conv_resample=False"),
        ({"out.2.weight": None}, "lacks the tensor that we call conv_out.weight"),
        ({"out.2.weight": torch.zeros(4, 32, 3, 3)}, "4 channels out of 3"),
        ({"out.2.weight": "text"}, "out.2.weight is a str"),
    ],
)
def test_networks_of_guided_diffusion_s_that_are_not_ours(tmp_path, changes, message):
    state = peer_networks.Improved(32, (1, 1), 1, (1,)).state_dict()
    state = {key: value for key, value in (state | changes).items() if value is not None}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"guided-diffusion.*, but") as refusal:
        checkpoint.load(tmp_path / "model.pt")
    assert message in str(refusal.value)


def test_a_file_of_w86763777_s(tmp_path):
    theirs = randomise(peer_networks.W86763777(1000, 32, (1, 2, 2, 2), 2, (1,)), seed=7)
    theirs.head.weight.data *= 0.01  # so that the first GroupNorm's eps is seen beside the variance that it divides by
    raw = peer_networks.W86763777(1000, 32, (1, 2, 2, 2), 2, (1,))
    optim = torch.optim.Adam(raw.parameters())
    states = {"net_model": raw.state_dict(), "ema_model": theirs.state_dict(), "optim": optim.state_dict()}
    torch.save({**states, "sched": {"last_epoch": 9}, "step": 800_000, "x_T": torch.randn(4)}, tmp_path / "ckpt.pt")
    assert_same_function(ddpm.load(tmp_path / "ckpt.pt"), theirs, *batch())
    assert checkpoint.load(tmp_path / "ckpt.pt").step == 800_000
    for stated in ("schedule.T=1000", "schedule=linear", "prediction=eps", "network.groups=32"):
        key = stated.partition("=")[0]
        asked = {"schedule": "cosine", "prediction": "v"}.get(key, "8")
        with pytest.raises(RequestError, match=f"^{key} cannot change.*states {stated}$"):
            resolved(tmp_path / "ckpt.pt", f"{key}={asked}")


@pytest.mark.parametrize(
    ("name", "said"),
    [("time_embedding.timembedding.1.weight", "temb.dense.0.weight"), ("head.weight", "conv_in.weight")],
)
def test_a_file_of_w86763777_s_that_lacks_a_tensor_is_refused_by_its_name(tmp_path, name, said):
    state = peer_networks.W86763777(1000, 32, (1, 2), 1, (1,)).state_dict()
    torch.save({"ema_model": {key: value for key, value in state.items() if key != name}}, tmp_path / "ckpt.pt")
    with pytest.raises(RequestError, match=said):
        ddpm.load(tmp_path / "ckpt.pt", "recipe=cifar10")


def test_queries_keys_and_values_of_a_length_that_no_heads_have_are_refused_by_their_name(tmp_path):
    state = peer_networks.Improved(32, (1, 2), 1, (1,)).state_dict()
    state["middle_block.1.qkv.weight"] = state["middle_block.1.qkv.weight"][:-1]
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(RequestError, match=r"mid\.attn_1\."):
        ddpm.load(tmp_path / "model.pt", "network.heads=1", "recipe=cifar10")


def test_weights_in_half_precision_are_read_in_float32(tmp_path):
    theirs = randomise(peer_networks.W86763777(1000, 32, (1, 2, 2, 2), 2, (1,)), seed=7).half()
    torch.save({"ema_model": theirs.state_dict(), "step": 1}, tmp_path / "ckpt.pt")
    read = checkpoint.load(tmp_path / "ckpt.pt").weights
    assert {value.dtype for value in read.values()} == {torch.float32}
    assert torch.equal(read["conv_in.weight"], theirs.head.weight.float())


OF_FILES = {
    "pesser": (lambda: ours().state_dict(), "temb.dense.1.bias", "conv_in.weight"),
    "improved": (
        lambda: peer_networks.Improved(32, (1, 2), 1, (1,)).state_dict(),
        "out.2.weight",
        "time_embed.0.weight",
    ),
    "w86763777": (
        lambda: peer_networks.W86763777(20, 32, (1, 2), 1, (1,)).state_dict(),
        "time_embedding.timembedding.0.weight",
        "time_embedding.timembedding.1.weight",
    ),
}


@pytest.mark.parametrize("of", OF_FILES)
def test_tensors_that_are_no_layer_s_are_named(of):
    """Instead of what PyTorch says when it is to take their columns."""
    made, any_tensor, matrix = OF_FILES[of]
    state = made()

    def refusal(**changes):
        changed = {**state, **changes}
        with pytest.raises(ValueError, match=r"^model\.pt is .*'s, but ") as refused:
            converters.from_content({"ema_model": changed} if of == "w86763777" else changed, Path("model.pt"))
        return str(refused.value)

    for value in (torch.zeros(()), torch.zeros(0, 3), torch.eye(3).to_sparse()):
        said = f"{any_tensor} is {list(value.shape)}, {value.layout}, which no layer's weights are"
        assert refusal(**{any_tensor: value}).endswith(said)
    flat = state[matrix].flatten()
    assert re.search(rf"what we call \S+ is \[{len(flat)}\], no ", refusal(**{matrix: flat}))
    state[3] = flat
    assert refusal().endswith("a int, 3, is in the place of a tensor's name")


@pytest.mark.parametrize("shape", [(256,), (32, 7)])
def test_a_matrix_of_diffusers_for_other_than_sines_and_cosines_is_refused(unet, folder, shape):
    edit(folder / "config.json", flip_sin_to_cos=True)
    weights = {**unet.state_dict(), "time_embedding.linear_1.weight": torch.zeros(shape)}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"is a diffusers folder, but .* no matrix for as many sines as cosines"):
        checkpoint.load(folder)


def test_the_published_numbers_of_tensors():
    """328 of pesser's, 329 with w86763777's table, 304 where q, k and v are one."""
    assert len(peer_networks.W86763777(10, 32, (1, 2, 2, 2), 2, (1,)).state_dict()) == 329
    assert len(peer_networks.Improved(32, (1, 2, 2, 2), 2, (1,)).state_dict()) == 304


def test_a_file_of_no_known_layout_is_described(tmp_path):
    for content, what in (
        ({"model": {}}, "1 keys: model"),
        ([1, 2], "a list"),
        ([], "a list"),
        ({}, "nothing"),
        ({"a": 1, "b": 2, "c": 3}, "3 keys: a, b, c"),
        ({"input_blocks.0.0.weight": torch.zeros(1)}, "1 keys: input_blocks.0.0.weight"),
        ({**dict.fromkeys("abcd", 1)}, "4 keys: a, b, c, ..."),
    ):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=f"no known layout: it holds {what}; known are our own"):
            checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"known are our own.*, diffusers.*, .*improved-diff") as refusal:
        checkpoint.load(tmp_path / "x.pt")
    assert all(name in str(refusal.value) for name in ("pesser/pytorch_diffusion", "w86763777/pytorch-ddpm"))
    save_file({"time_embedding.linear_1.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="give the folder"):
        checkpoint.load(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="cut short"):
        checkpoint.load(tmp_path / "x.safetensors")


# --- on the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.channels=64"], "network.channels cannot change: the file (diffusers) states network.channels=32"),
        (["network=iddpm"], "network cannot change"),
        (["network.heads=2"], "network.heads belongs to network=iddpm"),
        (["schedule.beta_1=1e-3"], "the file (diffusers) states schedule.beta_1=0.0001"),
        (["objective=vlb"], "objective is the checkpoint's"),
        (["recipe=cifar"], "did you mean cifar10"),
    ],
)
def test_what_a_foreign_file_states_cannot_change(folder, overrides, message):
    with pytest.raises(RequestError) as refusal:
        resolved(folder, *overrides)
    assert message in str(refusal.value)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8)])
def test_the_recipe_of_images_of_a_shape_has_images_of_this_shape(shape):
    (override,) = recipe(*shape)
    assert build.dataset(compose([override])).shape == shape
    assert recipe(2, *shape[1:]) == []


def test_a_recipe_is_asked_for_where_several_would_do(folder):
    edit(folder / "config.json", sample_size=256)
    with pytest.raises(RequestError, match="add recipe=NAME, one of celeba_hq"):
        resolved(folder)
    assert resolved(folder, "recipe=lsun_cat").choices.data == "lsun_cat"


@pytest.mark.slow
def test_a_foreign_folder_is_evaluated(workspace):
    options = {**CIFAR10, "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (32, 32)}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = randomise(UNet2DModel(**{**options, **blocks}), seed=8)
    DDPMPipeline(network, DDPMScheduler(num_train_timesteps=20)).save_pretrained("theirs")
    asked = ["ckpt=theirs", "debug=smoke", "sampler.steps=5", "logger=csv"]
    done = run("evaluate.py", *asked, cwd=workspace)
    assert "read as diffusers: recipe=digits" in done.stdout
    (file,) = (workspace / "runs/evaluations/theirs").glob("*/results.json")
    results = json.loads(file.read_text())
    assert results["config"]["foreign"] == "diffusers"
    refusal = run("evaluate.py", *asked, "schedule.T=10", cwd=workspace, code=2)
    assert refusal.stderr == "error: schedule.T cannot change: the file (diffusers) states schedule.T=20\n"


# --- the Hub ---------------------------------------------------------------------------------------------------------


def test_a_name_on_the_hub(folder, unet, monkeypatch):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision, "unet/*.json" in allow_patterns))
        return str(folder)

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    assert_same_function(ddpm.load("hf://google/ddpm-cifar10-32@main"), unet, *batch())
    assert asked == [("google/ddpm-cifar10-32", "main", True)]


def test_the_hub_out_of_reach(monkeypatch):
    def snapshot_download(*_, **__):
        raise ConnectionError("no route\nto host")

    fake = types.ModuleType("huggingface_hub")
    fake.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    with pytest.raises(ValueError, match="cannot be fetched: no route"):
        checkpoint.load("hf://google/ddpm-cifar10-32")
    with pytest.raises(ValueError, match="not of the form hf://OWNER/NAME"):
        checkpoint.load("hf://ddpm")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install"):
        checkpoint.load("hf://google/ddpm-cifar10-32")


@pytest.mark.parametrize("value", ["1000 data.root=/x", "1000\n", "${oc.env:SECRET}", "{a: 1}", "'a'", ""])
def test_a_file_states_plain_values_only(value):
    assert Converted("of theirs", {}, ["schedule.T=1000", "network.channel_mult=[1,2]"]).step == 0
    for stated, assumed in ((["schedule.T=1000", f"schedule.T={value}"], []), ([], [f"schedule.T={value}"])):
        with pytest.raises(ValueError, match="which is no plain value"):
            Converted("of theirs", {}, stated, assumed)


def test_a_foreign_network_can_be_built_and_trained():
    config = compose(["network=iddpm"])
    network = build.network(config, build.dataset(config))
    assert network.mid.attn_1.heads == 4
    assert network(torch.randn(2, 1, 8, 8), torch.tensor([0, 999])).shape == (2, 1, 8, 8)
