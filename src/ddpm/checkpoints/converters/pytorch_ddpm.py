"""w86763777/pytorch-ddpm: `ckpt.pt`, a dict with the averaged network as `ema_model`.

The network is the original's with a symmetrically padded downsampling, eps 1e-5 and a table of time embeddings whose
sines and cosines alternate; the table has a row for each of the T timesteps.
"""

from typing import Any

from torch import Tensor

from ddpm.checkpoints.converters.converted import Converted, architecture, count, flag, sines_first, step_of, tensors

NAME = "w86763777/pytorch-ddpm (a dict with ema_model)"
TABLE = "time_embedding.timembedding.0.weight"
MODULES = (
    ("head.", "conv_in."),
    ("time_embedding.timembedding.1.", "temb.dense.0."),
    ("time_embedding.timembedding.3.", "temb.dense.1."),
    ("middleblocks.0.attn.", "mid.attn_1."),
    ("middleblocks.0.", "mid.block_1."),
    ("middleblocks.1.", "mid.block_2."),
    ("tail.0.", "norm_out."),
    ("tail.2.", "conv_out."),
)
PARTS = {
    "block1.0.": "norm1.",
    "block1.2.": "conv1.",
    "temb_proj.1.": "temb_proj.",
    "block2.0.": "norm2.",
    "block2.3.": "conv2.",
    "shortcut.": "nin_shortcut.",
}
ATTENTION = {"group_norm.": "norm.", "proj_q.": "q.", "proj_k.": "k.", "proj_v.": "v.", "proj.": "proj_out."}


def recognises(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("ema_model"), dict) and TABLE in content["ema_model"]


def read(content: Any) -> Converted:
    state = tensors(content["ema_model"])
    table = state.pop(TABLE)
    names = _modules(state)
    weights = {_renamed(key, names): value for key, value in state.items()}
    weights = sines_first(weights, lambda matrix: (matrix[:, 0::2], matrix[:, 1::2]))
    stated, assumed = architecture(weights)
    dialect = [flag("norm_eps", 1e-5), flag("symmetric_padding", True), flag("frequency_shift", 0)]
    stated += ["network.groups=32", "schedule=linear", f"schedule.T={len(table)}", "prediction=eps", *dialect]
    return Converted(NAME.partition(" (")[0], weights, stated, assumed, step_of(content.get("step", 0)))


def _modules(state: dict[str, Tensor]) -> list[tuple[str, str]]:
    """Their prefix of each module and ours; blocks are numbered through, with a resampling after each level."""
    names = list(MODULES)
    level = 0
    for theirs, ours, step in (("downblocks", "down", 1), ("upblocks", "up", -1)):
        block = 0
        for n in range(count(state, rf"{theirs}\.(\d+)\.")):
            if f"{theirs}.{n}.main.weight" in state:
                names.append((f"{theirs}.{n}.main.", f"{ours}.{level}.{ours}sample.conv."))
                level, block = level + step, 0
            else:
                names.append((f"{theirs}.{n}.attn.", f"{ours}.{level}.attn.{block}."))
                names.append((f"{theirs}.{n}.", f"{ours}.{level}.block.{block}."))
                block += 1
    return names


def _renamed(key: str, names: list[tuple[str, str]]) -> str:
    """Our key; one that has no place in such a network keeps its name, and is then refused as unexpected."""
    for theirs, ours in names:
        if key.startswith(theirs):
            rest = key.removeprefix(theirs)
            for part, replacement in (ATTENTION if ".attn" in ours else PARTS).items():
                if rest.startswith(part):
                    return ours + replacement + rest.removeprefix(part)
            return ours + rest
    return key
