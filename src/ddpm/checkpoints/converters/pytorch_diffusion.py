"""pesser/pytorch_diffusion and ermongroup/ddim: the original's network and names, so that only containers differ.

The published files are bare state_dicts, of the raw weights or (`ema_*`) of their average; a training checkpoint of
the ddim repository is a list whose last item is the average.
"""

from typing import Any

from ddpm.checkpoints.converters.converted import OF_THE_PAPER, Converted, architecture, learned, step_of, tensors

NAME = "pesser/pytorch_diffusion or ermongroup/ddim (a state_dict with conv_in, temb.dense, down, mid, up)"
STEP = 3  # where the list has it


def recognises(content: Any) -> bool:
    state = content[-1] if isinstance(content, list) and content else content
    return isinstance(state, dict) and "temb.dense.0.weight" in state


def read(content: Any) -> Converted:
    trained = isinstance(content, list)
    state = content[-1] if trained else content
    weights = tensors(state)
    stated, assumed = architecture(weights)
    assumed = [*OF_THE_PAPER, *assumed, *(["variance=learned"] if learned(weights) else [])]
    step = step_of(content[STEP]) if trained and len(content) > STEP + 1 else 0
    return Converted(NAME.partition(" (")[0], weights, [*stated, "network.groups=32"], assumed, step)
