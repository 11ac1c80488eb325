"""Hugging Face diffusers: a folder with UNet2DModel's config.json and weights and a scheduler_config.json.

google/ddpm-* keep the three at the root; a saved pipeline has model_index.json, unet/ and scheduler/. What a
configuration leaves out has UNet2DModel's or DDPMScheduler's default.
"""

import json
import re
import reprlib
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm.checkpoints import safe_reading
from ddpm.checkpoints.converters.converted import (
    Converted,
    flag,
    network_shape,
    recipe,
    sines_first,
    tensors,
    told_classes,
)
from ddpm.messages import printable

NAME = "diffusers (a folder with config.json, diffusion_pytorch_model.safetensors or .bin, scheduler_config.json)"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

# Our modules and theirs, wherever they stand in a key; in this order from ours to theirs.
MODULES = (
    (".temb.dense.0.", ".time_embedding.linear_1."),
    (".temb.dense.1.", ".time_embedding.linear_2."),
    (".label_emb.", ".class_embedding."),
    (".mid.block_1.", ".mid_block.resnets.0."),
    (".mid.block_2.", ".mid_block.resnets.1."),
    (".mid.attn_1.", ".mid_block.attentions.0."),
    (".down.", ".down_blocks."),
    (".up.", ".up_blocks."),
    (".block.", ".resnets."),
    (".attn.", ".attentions."),
    (".temb_proj.", ".time_emb_proj."),
    (".nin_shortcut.", ".conv_shortcut."),
    (".downsample.", ".downsamplers.0."),
    (".upsample.", ".upsamplers.0."),
    (".norm.", ".group_norm."),
    (".q.", ".to_q."),
    (".k.", ".to_k."),
    (".v.", ".to_v."),
    (".proj_out.", ".to_out.0."),
    (".norm_out.", ".conv_norm_out."),
)
LEGACY = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}

# What UNet2DModel can do and our network cannot: the option, what it must be, which is its default.
ONLY: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "add_attention": True,
    "class_embed_type": None,
}
# The same for the schedulers.
ONLY_SCHEDULER: dict[str, Any] = {
    "trained_betas": None,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "rescale_betas_zero_snr": False,
}
MAX_BYTES = 1 << 20  # bytes of a configuration; theirs have 2 kB
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
# Theirs read `learned` as a variance, ours (and the original) as its logarithm; and take a root of fixed_large_log.
VARIANCES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}


def recognises(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "config.json", *WEIGHTS))


def read(folder: Path) -> Converted:
    """What the folder holds.

    Raises:
        ValueError: something is missing, or the model is none that conf/ can describe.
    """
    pipeline = (folder / "model_index.json").is_file() and (folder / "unet").is_dir()
    unet, scheduler = (folder / "unet", folder / "scheduler") if pipeline else (folder, folder)
    config, of_scheduler = _json(unet / "config.json"), _json(scheduler / "scheduler_config.json")
    try:
        stated, assumed = _network(config)
        stated += _diffusion(of_scheduler)
    except (TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{folder} is a diffusers folder whose configuration cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{folder} is a diffusers folder, but {error}") from None
    file = next((unet / name for name in WEIGHTS if (unet / name).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} is a diffusers folder without weights: {unet} has no {' or '.join(WEIGHTS)}")
    content = safe_reading.read(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not weights by name")
    try:
        weights = to_ours(tensors(content), len(config["block_out_channels"]))
        if config.get("flip_sin_to_cos", True):
            weights = sines_first(weights, lambda matrix: matrix.chunk(2, dim=1)[::-1])
        return Converted(NAME.partition(" (")[0], weights, stated, assumed)
    except ValueError as error:
        raise ValueError(f"{folder} is a diffusers folder, but {error}") from None


def to_theirs(weights: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Our state under their names and in their shapes: their attention is linear where ours is a 1x1 convolution."""
    renamed = {}
    for key, value in weights.items():
        name = f".{_reversed(key, levels)}"
        for ours, theirs in MODULES:
            name = name.replace(ours, theirs)
        renamed[name[1:]] = value[:, :, 0, 0] if ".attentions." in name and value.ndim == 4 else value
    return renamed


def to_ours(weights: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Their state under our names and in our shapes; names that they used formerly are understood."""
    renamed = {}
    for key, value in weights.items():
        name = f".{key}"
        for formerly, now in LEGACY.items():
            name = name.replace(formerly, now)
        for ours, theirs in MODULES:
            name = name.replace(theirs, ours)
        linear = ".attn" in name and value.ndim == 2
        ours = _reversed(name[1:], levels)
        if ours in renamed:
            raise ValueError(f"two of its tensors are what we call {printable(ours)}")
        renamed[ours] = value[:, :, None, None] if linear else value
    return renamed


def _network(config: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Stated and assumed overrides for a UNet2DModel's configuration; a ValueError names what we do not have."""
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(f"its network is a {config['_class_name']}, and only a UNet2DModel is ours")
    _refuse(config, ONLY)
    widths, down, up = config["block_out_channels"], config["down_block_types"], config["up_block_types"]
    for name in (*down, *up):
        if name not in ("DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"):
            raise ValueError(f"its network has a {name}, which ours does not")
    attending = [name.startswith("Attn") for name in down]
    if attending != [name.startswith("Attn") for name in reversed(up)]:
        raise ValueError("its network attends on other levels on the way up than on the way down")
    if "attention_head_dim" not in config:
        raise ValueError(
            'config.json does not state attention_head_dim: add "attention_head_dim": null for one head, as '
            "google/ddpm-* have, or 8, the library's default"
        )
    if (padding := config.get("downsample_padding", 1)) not in (0, 1):
        raise ValueError(f"its network has downsample_padding={padding}, and ours 0 or 1")
    groups, scale_shift = config.get("norm_num_groups", 32), config.get("resnet_time_scale_shift", "default")
    if scale_shift not in ("default", "scale_shift"):
        raise ValueError(f"its network has resnet_time_scale_shift={scale_shift}, which ours does not")
    of_attention = config.get("attn_norm_num_groups")
    if of_attention not in (None, groups):
        raise ValueError("its network has attn_norm_num_groups other than norm_num_groups, which ours does not")
    if scale_shift == "scale_shift" and of_attention is None:
        raise ValueError(
            "its network has resnet_time_scale_shift=scale_shift and attn_norm_num_groups=null, so that its middle has "
            "an attention without a norm, which ours does not"
        )
    stated = [
        *network_shape(widths[0], widths, config.get("layers_per_block", 2)),
        f"network.groups={groups}",
        flag("norm_eps", config.get("norm_eps", 1e-5)),
        flag("symmetric_padding", padding == 1),
        flag("frequency_shift", config.get("freq_shift", 0)),
        flag("head_channels", config["attention_head_dim"]),
        flag("scale_shift", scale_shift == "scale_shift"),
    ]
    if (classes := config.get("num_class_embeds")) is not None:
        if not isinstance(classes, int):
            raise ValueError(f"its num_class_embeds is {printable(classes)}, which is no number of classes")
        stated += told_classes(classes)
    size = config.get("sample_size")
    if size is None:
        return stated, []
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"its sample_size is {printable(size)}, which is no size of images")
    height, width = sides
    resolutions = ",".join(str(height >> level) for level, attends in enumerate(attending) if attends)
    stated.append(f"network.attention_resolutions=[{resolutions}]")
    return stated, recipe(config.get("in_channels", 3), height, width)


def _diffusion(config: dict[str, Any]) -> list[str]:
    """Stated overrides for a scheduler's configuration; a ValueError names what we do not have."""
    name = config.get("_class_name", "DDPMScheduler")
    if name not in SCHEDULERS:
        raise ValueError(f"its scheduler is a {name}, and only {' and '.join(SCHEDULERS)} are understood")
    _refuse(config, ONLY_SCHEDULER)
    schedule = _known(SCHEDULES, config, "beta_schedule", "linear")
    stated = [
        f"schedule={schedule}",
        f"schedule.T={config.get('num_train_timesteps', 1000)}",
        f"prediction={_known(PREDICTIONS, config, 'prediction_type', 'epsilon')}",
    ]
    if schedule == "cosine":
        stated.append("schedule.snr_scale=1.0")  # whatever a recipe says: theirs has no such thing
    else:
        first, last = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
        stated += [f"schedule.beta_1={first}", f"schedule.beta_T={last}", "schedule.rescale=false"]
    if name == "DDPMScheduler":
        stated.append(f"variance={_known(VARIANCES, config, 'variance_type', 'fixed_small')}")
    return stated


def _known(names: dict[str, str], config: dict[str, Any], key: str, default: str) -> str:
    theirs = config.get(key, default)
    if theirs not in names:
        raise ValueError(f"its {key} is {theirs}, and we have {', '.join(names)}")
    return names[theirs]


def _refuse(config: dict[str, Any], only: dict[str, Any]) -> None:
    for key, needed in only.items():
        if config.get(key, needed) != needed:
            raise ValueError(f"it has {key}={reprlib.repr(config[key])}, and we have {needed} only")


def _reversed(key: str, levels: int) -> str:
    """The same key with up-blocks counted from the other end: theirs from the lowest resolution."""
    return re.sub(r"^up\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", key)


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_BYTES or not file.is_file():
            raise ValueError("it is no file of a configuration's size")
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file.parent} is part of a diffusers folder and has no {file.name}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no configuration")
    return content
