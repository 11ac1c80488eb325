"""A model in the files of other tools: a folder for diffusers' DDPMPipeline, or one .safetensors that `ckpt=` reads."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import save
from torch import Tensor

from ddpm.checkpoints import checkpoint
from ddpm.checkpoints.converters.diffusers import to_theirs
from ddpm.config import trust
from ddpm.config.facts import fact
from ddpm.config.saved import plain
from ddpm.diffusion import prediction, variance
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import cosine
from ddpm.files import write_whole
from ddpm.networks.unet import UNet

DIFFUSERS = "0.36.0"  # whose configuration is written
PREDICTIONS = {prediction.Epsilon: "epsilon", prediction.X0: "sample", prediction.Velocity: "v_prediction"}
VARIANCES = {
    variance.FixedSmall: "fixed_small",
    variance.FixedLarge: "fixed_large",
    variance.LearnedRange: "learned_range",
}


def write_diffusers(folder: Path, p: ReverseProcess, config: DictConfig, jsons: dict[str, dict[str, Any]]) -> None:
    """Write a DDPMPipeline's folder; `jsons` are `diffusers_configs`."""
    for file, content in jsons.items():
        (folder / file).parent.mkdir(exist_ok=True)
        write_whole(folder / file, json.dumps(content, indent=2) + "\n")
    theirs = to_theirs(_with_a_class_for_none(p.network.state_dict(), config), len(config.network.channel_mult))
    _save(theirs, folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def write_safetensors(folder: Path, p: ReverseProcess, config: DictConfig, step: int) -> None:
    """Write the weights and, beside them in the same file, their configuration."""
    about = {"format": "pt", "global_step": str(step), "config": json.dumps(_portable(config))}
    _save(p.network.state_dict(), folder / checkpoint.EXPORTED, about)


def _save(weights: Mapping[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Save weights in the order of their dimensions, which is not that of the memory where channels lie last."""
    write_whole(file, save({name: value.contiguous() for name, value in weights.items()}, metadata))


def diffusers_configs(p: ReverseProcess, config: DictConfig, shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """The JSON files of a DDPMPipeline, by name.

    Raises:
        ValueError: diffusers has no such network, prediction or variance.
    """
    if fact(config.condition["_target_"], "needs") == "image":
        raise ValueError("diffusers has no pipeline for a network that is told an image: use format=safetensors")
    about, outputs = {"_diffusers_version": DIFFUSERS}, shape[0] * (2 if p.variance.learned else 1)
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    return {
        "model_index.json": {"_class_name": "DDPMPipeline", **about, **parts},
        "unet/config.json": {
            "_class_name": "UNet2DModel",
            **about,
            **unet_config(config.network, shape, outputs),
            "num_class_embeds": _class_embeddings(config),
        },
        "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", **about, **scheduler_config(p, config)},
    }


def _class_embeddings(config: DictConfig) -> int | None:
    """How many embeddings of classes they need: one more than there are classes where some were dropped in training."""
    classes = config.condition.get("classes")
    return None if classes is None else int(classes) + bool(config.condition.drop)


def _with_a_class_for_none(weights: dict[str, Tensor], config: DictConfig) -> dict[str, Tensor]:
    """The weights, where labels were dropped in training with an embedding of 0 after the last: no class, by number."""
    embeddings = weights.get("label_emb.weight")
    if embeddings is None or not config.condition.drop:
        return weights
    return {**weights, "label_emb.weight": torch.cat([embeddings, torch.zeros_like(embeddings[:1])])}


def unet_config(network: DictConfig, shape: tuple[int, ...], out_channels: int) -> dict[str, Any]:
    """The arguments of a UNet2DModel that is the same function as a network of this configuration.

    Raises:
        ValueError: there is none.
    """
    if network["_target_"] != "ddpm.networks.unet.UNet":
        raise ValueError(f"diffusers has no network like {network['_target_']}: use format=safetensors")
    ours = {name: argument.default for name, argument in inspect.signature(UNet).parameters.items()} | dict(network)
    if ours["time_scale"] != 1:
        raise ValueError(f"diffusers has no network with time_scale={ours['time_scale']}: use format=safetensors")
    if ours["patch_size"] != 1:
        raise ValueError(f"diffusers has no network with patch_size={ours['patch_size']}: use format=safetensors")
    if ours["resblock_updown"]:
        raise ValueError("no UNet2DModel of diffusers has resblock_updown=true: use format=safetensors")
    if ours["channel_mult"][0] != 1:
        raise ValueError(
            f"diffusers has no network with channel_mult={ours['channel_mult']}, whose first level is wider than its "
            "first convolution: use format=safetensors"
        )
    channels, height, width = shape
    widths = [ours["channels"] * mult for mult in ours["channel_mult"]]
    attends = [height >> level in ours["attention_resolutions"] for level in range(len(widths))]
    return {
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": out_channels,
        "block_out_channels": widths,
        "layers_per_block": ours["num_res_blocks"],
        "down_block_types": ["AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends],
        "up_block_types": ["AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)],
        "mid_block_type": "UNetMidBlock2D",
        "mid_block_scale_factor": 1,
        "add_attention": True,
        "attention_head_dim": ours["head_channels"] or _head_channels(ours["heads"], widths, attends),
        "norm_num_groups": ours["groups"],
        "attn_norm_num_groups": ours["groups"] if ours["scale_shift"] else None,  # else they would leave this norm out
        "norm_eps": ours["norm_eps"],
        "resnet_time_scale_shift": "scale_shift" if ours["scale_shift"] else "default",
        "downsample_padding": int(ours["symmetric_padding"]),
        "downsample_type": "conv",
        "upsample_type": "conv",
        "dropout": ours["dropout"],
        "act_fn": "silu",
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "flip_sin_to_cos": False,
        "freq_shift": ours["frequency_shift"],
    }


def scheduler_config(p: ReverseProcess, config: DictConfig) -> dict[str, Any]:
    """The arguments of a DDPMScheduler that walks the same chain.

    Raises:
        ValueError: diffusers has no such prediction or variance.
    """
    if type(p.prediction) not in PREDICTIONS:
        raise ValueError(
            f"diffusers has no prediction={config.choices.prediction}, only {', '.join(PREDICTIONS.values())}: "
            "use format=safetensors"
        )
    if type(p.variance) not in VARIANCES:
        raise ValueError(
            f"diffusers has no variance={config.choices.variance} (its own reads the output as a variance, not as a "
            "logarithm): use format=safetensors"
        )
    return {
        "num_train_timesteps": p.q.T,
        **_betas(p, config),
        "prediction_type": PREDICTIONS[type(p.prediction)],
        "variance_type": VARIANCES[type(p.variance)],
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "thresholding": False,
        "rescale_betas_zero_snr": False,
        "timestep_spacing": "leading",
        "steps_offset": 0,
    }


def _head_channels(heads: int, widths: list[int], attends: list[bool]) -> int | None:
    """attention_head_dim: None is one head."""
    if heads == 1:
        return None
    sizes = {width // heads for width, yes in zip(widths, attends, strict=True) if yes} | {widths[-1] // heads}
    if len(sizes) > 1:
        raise ValueError(
            f"diffusers has heads of one size, and these have {' and '.join(map(str, sorted(sizes)))} channels: "
            "use format=safetensors"
        )
    return sizes.pop()


def _betas(p: ReverseProcess, config: DictConfig) -> dict[str, Any]:
    """The schedule by its name where diffusers has the same, else as a list."""
    schedule, T = config.schedule, p.q.T
    scale = 1000 / T if schedule.get("rescale") else 1.0
    ends = {"beta_start": schedule.get("beta_1", 0) * scale, "beta_end": schedule.get("beta_T", 0) * scale}
    module, _, name = schedule["_target_"].rpartition(".")
    named = {"linear": "linear", "quadratic": "scaled_linear", "sigmoid": "sigmoid"}
    if module == cosine.__module__ and name in named:
        return {"beta_schedule": named[name], **ends}
    if torch.equal(p.q.alpha_bar, ForwardProcess(cosine(T)).alpha_bar):
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"trained_betas": (1 - p.q.alpha_bar[1:] / p.q.alpha_bar[:-1]).tolist()}


def _portable(config: DictConfig) -> dict[str, Any]:
    """The configuration without anything of this machine and this user."""
    return trust.with_defaults(plain(config))
