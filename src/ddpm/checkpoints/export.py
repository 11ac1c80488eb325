"""A checkpoint for other tools.

    ddpm export ckpt=PATH to=DIR [format=diffusers|safetensors] [KEY=VALUE] ...

`ckpt` is whatever evaluate.py takes, with the same settings for what a foreign file leaves open; DIR is new or empty.
`diffusers` makes a folder for DDPMPipeline.from_pretrained; `safetensors` the averaged weights with their configuration
in one file, which `ckpt=` reads. Both come with a model card that holds the last evaluation of this checkpoint.
"""

import inspect
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from safetensors.torch import save_file

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.checkpoints.converters.diffusers import to_theirs
from ddpm.config import trust
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import path_of, quote_paths, split_keys
from ddpm.config.saved import plain
from ddpm.diffusion import prediction, variance
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.messages import say
from ddpm.networks.unet import UNet
from ddpm.runs import folders

FORMATS = ("diffusers", "safetensors")
DIFFUSERS = "0.36.0"  # whose configuration is written
PREDICTIONS = {prediction.Epsilon: "epsilon", prediction.X0: "sample", prediction.Velocity: "v_prediction"}
VARIANCES = {
    variance.FixedSmall: "fixed_small",
    variance.FixedLarge: "fixed_large",
    variance.LearnedRange: "learned_range",
}


def export(overrides: list[str]) -> None:
    with request_errors():  # a wrong request ends here, before anything is written
        own, others = split_keys(overrides, ("to", "format"))
        kind, to = own.get("format", "diffusers"), own.get("to")
        if kind not in FORMATS:
            raise RequestError(f"format={kind} is not one of {', '.join(FORMATS)}")
        if not to:
            raise RequestError("to= is missing: to=DIR, a folder that is new or empty")
        saved = checkpoint.load(path_of("ckpt", others))
        config = compose_evaluation(saved.config, others)
        images = build.dataset(config)
        p = build.trained(saved, config, images)
        jsons = diffusers_configs(p, config, images.shape) if kind == "diffusers" else {}
        folder = folders.claim(Path(to), "to")
    for file, content in jsons.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    if kind == "diffusers":
        theirs = to_theirs(p.network.state_dict(), len(config.network.channel_mult))
        tensors = {key: value.contiguous() for key, value in theirs.items()}
        save_file(tensors, folder / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    else:
        about = {"format": "pt", "global_step": str(saved.step), "config": json.dumps(_portable(config))}
        save_file(p.network.state_dict(), folder / checkpoint.EXPORTED, about)
    (folder / "README.md").write_text(card(saved, config, p, images.shape, kind))
    say(f"exported: {folder}")


def diffusers_configs(p: ReverseProcess, config: DictConfig, shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """The JSON files of a DDPMPipeline, by name.

    Raises:
        ValueError: diffusers has no such network, prediction or variance.
    """
    about, outputs = {"_diffusers_version": DIFFUSERS}, shape[0] * (2 if p.variance.learned else 1)
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    return {
        "model_index.json": {"_class_name": "DDPMPipeline", **about, **parts},
        "unet/config.json": {"_class_name": "UNet2DModel", **about, **unet_config(config.network, shape, outputs)},
        "scheduler/scheduler_config.json": {"_class_name": "DDPMScheduler", **about, **scheduler_config(p, config)},
    }


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


def card(saved: Checkpoint, config: DictConfig, p: ReverseProcess, shape: tuple[int, ...], kind: str) -> str:
    """README.md: what the model is, how it is used, and what was measured under which protocol."""
    parameters = sum(weights.numel() for weights in p.network.parameters())
    trained = f", after {saved.step:,} steps of training" if saved.step else ""
    use = _diffusers_use(p.q.T) if kind == "diffusers" else _own_use()
    axes = "\n".join(f"| {axis} | {config.choices[axis]} |" for axis in ("schedule", "prediction", "variance"))
    front = "library_name: diffusers\n" * (kind == "diffusers")
    return f"""---
{front}pipeline_tag: unconditional-image-generation
tags: [ddpm]
---
# {saved.name if saved.run is None else config.name}

A denoising diffusion model ([Ho et al. 2020](https://arxiv.org/abs/2006.11239)) of {config.choices.data} images,
{"x".join(map(str, shape))}: {parameters:,} parameters{trained}.

| | |
|---|---|
{axes}
| T | {p.q.T} |

## Use

{use}

## Measured

{_measured(saved)}
"""


def _diffusers_use(T: int) -> str:
    return f"""```python
from diffusers import DDPMPipeline

images = DDPMPipeline.from_pretrained(FOLDER)(batch_size=16, num_inference_steps={T}).images
```"""


def _own_use() -> str:
    return f"""`ddpm evaluate ckpt=FOLDER` or, in Python, `ddpm.load(FOLDER)`. `{checkpoint.EXPORTED}` has the
tensors under the names of the original's code and, in its metadata, the whole configuration."""


def _measured(saved: Checkpoint) -> str:
    """The metrics of the newest results.json, if it is of this checkpoint."""
    folder = saved.run or folders.ROOT / "evaluations" / saved.name
    try:
        results = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError):
        return "Not evaluated."
    if Path(results["ckpt"]).name != saved.path.name:
        return "Not evaluated."
    lines = ["| metric | value | of |", "|---|---|---|"]
    for name, parts in results["metrics"].items():
        spread = next((f" ± {parts[kind]:.3g} ({kind})" for kind in ("std", "stderr") if kind in parts), "")
        against = f" against {parts['reference_n']:,} of {parts['reference']}" if "reference" in parts else ""
        lines.append(f"| {name} | {parts['value']:.4f}{spread} | {parts['n']:,} images{against} |")
    return "\n".join([*lines, "", "```json", json.dumps(results["protocol"], indent=2), "```"])


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
    """The schedule by its name where diffusers has it, else as a list."""
    schedule, T = config.schedule, p.q.T
    scale = 1000 / T if schedule.get("rescale") else 1.0
    ends = {"beta_start": schedule.get("beta_1", 0) * scale, "beta_end": schedule.get("beta_T", 0) * scale}
    name = schedule["_target_"].rpartition(".")[2]
    named = {"linear": "linear", "quadratic": "scaled_linear", "sigmoid": "sigmoid"}
    if name in named:
        return {"beta_schedule": named[name], **ends}
    if name == "cosine" and schedule.get("offset", 0.008) == 0.008 and schedule.get("max_beta", 0.999) == 0.999:
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"trained_betas": (1 - p.q.alpha_bar[1:] / p.q.alpha_bar[:-1]).tolist()}


def _portable(config: DictConfig) -> dict[str, Any]:
    """The configuration without anything of this machine and this user."""
    return trust.with_defaults(plain(config))


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
    else:
        export(quote_paths(arguments))
    return 0
