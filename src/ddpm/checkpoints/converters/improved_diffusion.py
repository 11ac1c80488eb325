"""openai/improved-diffusion and openai/guided-diffusion: `.pt`, a bare state_dict (`ema_*` the average).

Of the flags, the tensors tell the widths, the depth, the levels with attention, `learn_sigma`, `class_cond`,
`resblock_updown` and `use_scale_shift_norm`. `num_heads` or `num_head_channels`, the schedule, T and
`rescale_timesteps` are the user's to give. Their queries, keys and values are one convolution whose rows go head by
head.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ddpm.checkpoints.converters.converted import (
    OF_THE_PAPER,
    Converted,
    architecture,
    count,
    flag,
    learned,
    sines_first,
    tensors,
    told_classes,
)
from ddpm.networks.unet import Attention

NAME = "openai/improved-diffusion or guided-diffusion (a state_dict with time_embed, input_blocks, output_blocks)"
RES_BLOCK = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "temb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "nin_shortcut.",
}
MODULES = {
    "time_embed.0.": "temb.dense.0.",
    "time_embed.2.": "temb.dense.1.",
    "input_blocks.0.0.": "conv_in.",
    "middle_block.0.": "mid.block_1.",
    "middle_block.1.": "mid.attn_1.",
    "middle_block.2.": "mid.block_2.",
    "out.0.": "norm_out.",
    "out.2.": "conv_out.",
}


def recognises(content: Any) -> bool:
    return isinstance(content, dict) and "time_embed.0.weight" in content and "input_blocks.0.0.weight" in content


def read(content: Any) -> Converted:
    """Queries, keys and values stay one tensor, `qkv`: `split_qkv` parts them when the number of heads is known."""
    state = tensors(content)
    convolutions = any(key.startswith("input_blocks.") and ".op." in key for key in state)
    if not convolutions and _blocks_to_resampling(state) is None:
        raise ValueError("its network resamples without any weights (conv_resample=False), which ours does not")
    modules = MODULES | _modules(state)
    weights = {_renamed(key, modules): value for key, value in state.items()}
    for key, value in weights.items():
        if ".attn" in key and value.ndim == 3:  # convolutions of width 1 over positions
            weights[key] = value.unsqueeze(-1)
    weights = sines_first(weights, lambda matrix: matrix.chunk(2, dim=1)[::-1])  # cosines come first there
    stated, assumed = architecture(weights)
    scale_shift = any(override == flag("scale_shift", True) for override in stated)
    stated += ["network.groups=32", *([] if scale_shift else [flag("scale_shift", False)])]
    if learned(weights):
        stated.append("variance=learned_range")
    if not convolutions:
        stated.append(flag("resblock_updown", True))
    if "label_emb.weight" in weights:
        stated += told_classes(len(weights["label_emb.weight"]))
    return Converted(NAME.partition(" (")[0], weights, stated, ["network=iddpm", *OF_THE_PAPER, *assumed])


def split_qkv(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The same weights with every joint `qkv` parted into q, k and v, by the network's number of heads."""
    parted = dict(weights)
    for name, module in network.named_modules():
        for kind in ("weight", "bias"):
            joint = parted.get(f"{name}.qkv.{kind}")
            if isinstance(module, Attention) and joint is not None and len(joint) % (3 * module.heads) == 0:
                rows = joint.reshape(module.heads, 3, -1, *joint.shape[1:])
                parted |= {f"{name}.{part}.{kind}": rows[:, i].flatten(0, 1) for i, part in enumerate("qkv")}
                del parted[f"{name}.qkv.{kind}"]
    return parted


def _blocks_to_resampling(state: Mapping[str, Any]) -> int | None:
    """How many blocks a level has before the one that halves, where blocks resample: on the way up there is one more.

    None where no block does.
    """
    ups = (re.match(r"output_blocks\.(\d+)\.[12]\.in_layers\.", key) for key in state)
    return min((int(match[1]) for match in ups if match), default=None)


def _modules(state: Mapping[str, Any]) -> dict[str, str]:
    """Their prefix of each block and ours. An input block is one layer of a level or a downsampling."""
    names: dict[str, str] = {}
    level = block = 0
    halving = _blocks_to_resampling(state)
    for n in range(1, count(state, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{n}.0.op.weight" in state:
            names[f"input_blocks.{n}.0.op."] = f"down.{level}.downsample.conv."
            level, block = level + 1, 0
        elif block == halving:
            names[f"input_blocks.{n}.0."] = f"down.{level}.downsample."
            level, block = level + 1, 0
        else:
            names[f"input_blocks.{n}.0."] = f"down.{level}.block.{block}."
            names[f"input_blocks.{n}.1."] = f"down.{level}.attn.{block}."
            block += 1
    block = 0
    for n in range(count(state, r"output_blocks\.(\d+)\.")):
        names[f"output_blocks.{n}.0."] = f"up.{level}.block.{block}."
        names[f"output_blocks.{n}.1."] = f"up.{level}.attn.{block}."
        block += 1
        for last in (1, 2):
            if any(f"output_blocks.{n}.{last}.{layer}.weight" in state for layer in ("conv", "in_layers.0")):
                names[f"output_blocks.{n}.{last}."] = f"up.{level}.upsample."
                level, block = level - 1, 0
    return names


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    """Our key; one that has no place in such a network keeps its name, and is then refused as unexpected."""
    for theirs, ours in modules.items():
        if key.startswith(theirs):
            rest = key.removeprefix(theirs)
            for part, replacement in RES_BLOCK.items():
                if rest.startswith(part):
                    return ours + replacement + rest.removeprefix(part)
            return ours + rest
    return key
