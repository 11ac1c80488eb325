"""What every foreign layout comes down to, and the architecture that weights under our names imply."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ddpm.messages import printable

PLAIN = re.compile(r"\+*[a-z_]+(\.\w+)*=(-?\w[\w.+-]*|\[[\w.,-]*\])")  # an override that a converter may state
OF_THE_PAPER = ["schedule=linear", "prediction=eps"]  # assumed of weights alone, whatever the default recipe has
ATTENTION_HEIGHT = 16  # the feature height at which every published network of this family has its first attention


@dataclass(frozen=True)
class Converted:
    """A foreign file's weights under our names, and its model as overrides of conf/.

    What is `stated` is a fact of the file. What is `assumed` the file leaves open: a user's override goes before it.
    """

    layout: str
    weights: dict[str, Tensor]
    stated: list[str]
    assumed: list[str] = field(default_factory=list)
    step: int = 0

    def __post_init__(self) -> None:
        """Refuse an override whose value is more than a name, a number or a list of numbers: the file's text is in it.

        Raises:
            ValueError: there is one.
        """
        for override in (*self.stated, *self.assumed):
            if not PLAIN.fullmatch(override):
                raise ValueError(f"it says {printable(override.lstrip('+'))}, which is no plain value")


def architecture(weights: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Stated and assumed overrides for weights of a U-Net under our names: the tensors tell all but the image size.

    Raises:
        ValueError: the tensors are not those of such a network.
    """
    try:
        if (convolution := weights["conv_in.weight"]).ndim != 4:
            raise ValueError(f"what we call conv_in.weight is {list(convolution.shape)}, no convolution of images")
        channels, images = convolution.shape[:2]
        widths = [
            weights[f"down.{level}.block.0.conv1.weight"].shape[0] for level in range(count(weights, r"down\.(\d+)\."))
        ]
        outputs, out = weights["conv_out.weight"].shape[0], weights["down.0.block.0.conv1.weight"].shape[0]
        blocks = count(weights, r"down\.0\.block\.(\d+)\.")
        scale_shift = weights["down.0.block.0.temb_proj.weight"].shape[0] == 2 * out
    except KeyError as error:
        raise ValueError(f"it lacks the tensor that we call {error.args[0]}") from None
    attending = [level for level in range(len(widths)) if f"down.{level}.attn.0.proj_out.weight" in weights]
    stated = [
        *network_shape(channels, widths, blocks),
        *([flag("scale_shift", True)] if scale_shift else []),
    ]
    if outputs not in (images, 2 * images):
        raise ValueError(f"its network makes {outputs} channels out of {images}, not as many or twice as many")
    if not attending:
        return stated, ["network.attention_resolutions=[]"]
    height = ATTENTION_HEIGHT << attending[0]
    resolutions = ",".join(str(height >> level) for level in attending)
    return stated, [*recipe(images, height, height), f"network.attention_resolutions=[{resolutions}]"]


def learned(weights: Mapping[str, Tensor]) -> bool:
    """Whether the network has a second output per channel, for the variance."""
    return weights["conv_out.weight"].shape[0] == 2 * weights["conv_in.weight"].shape[1]


def network_shape(channels: int, widths: list[int], blocks: int) -> list[str]:
    """Overrides for these widths of the levels and so many blocks on each.

    Raises:
        ValueError: widths that are not multiples of `channels`.
    """
    if any(width % channels for width in widths):
        raise ValueError(f"the widths {widths} of its levels are not multiples of {channels}, which our networks need")
    mult = ",".join(str(width // channels) for width in widths)
    return [f"network.channels={channels}", f"network.channel_mult=[{mult}]", f"network.num_res_blocks={blocks}"]


def flag(name: str, value: Any) -> str:
    """An override of an option of the U-Net that no file of conf/ need name.

    Raises:
        ValueError: a value that is no number, flag or null.
    """
    if not isinstance(value, bool | int | float | None):
        raise ValueError(f"its {name} is {printable(value)}, which is no number")
    return f"++network.{name}={str(value).lower() if isinstance(value, bool) else 'null' if value is None else value}"


def told_classes(classes: int) -> list[str]:
    """Overrides for a network that was told one of so many classes of every example, and never told nothing."""
    return ["condition=label", f"condition.classes={classes}", "condition.drop=0.0"]


def recipe(channels: int, height: int, width: int) -> list[str]:
    """The recipe for images of this shape, where there is only one."""
    name = {(3, 32, 32): "cifar10", (1, 8, 8): "digits"}.get((channels, height, width))
    return [f"recipe={name}"] if name else []


def count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern` finds at the beginning of a key."""
    return 1 + max((int(match[1]) for key in keys if (match := re.match(pattern, key))), default=-1)


def sines_first(
    weights: dict[str, Tensor], parts: Callable[[Float[Tensor, "out in"]], tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    """Weights for time embeddings of sines and then cosines, as ours are, made of weights for theirs.

    Args:
        parts: takes the columns for sines and those for cosines out of their first layer's matrix.

    Raises:
        ValueError: that is no matrix with as many of both.
    """
    first = "temb.dense.0.weight"
    if first not in weights:
        return weights
    if (matrix := weights[first]).ndim != 2 or matrix.shape[1] % 2:
        raise ValueError(f"what we call {first} is {list(matrix.shape)}, no matrix for as many sines as cosines")
    return {**weights, first: torch.cat(parts(matrix), dim=1)}


def tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """A state_dict in float32.

    Raises:
        ValueError: it holds something other than tensors of floating-point numbers, by name.
    """
    for key, value in state.items():
        if not isinstance(key, str):
            raise ValueError(f"a {type(key).__name__}, {printable(key)}, is in the place of a tensor's name")
        if not isinstance(value, Tensor):
            raise ValueError(f"{printable(key)} is a {type(value).__name__}, not a tensor")
        if not value.is_floating_point():
            raise ValueError(f"{printable(key)} is a tensor of {value.dtype}, and weights are floating-point numbers")
        if value.layout != torch.strided or not value.ndim or not value.numel():
            raise ValueError(f"{printable(key)} is {list(value.shape)}, {value.layout}, which no layer's weights are")
    return {key: value.float() for key, value in state.items()}


def step_of(stated: Any) -> int:
    """The training step that a file states for its weights.

    Raises:
        ValueError: it is no number.
    """
    try:
        return int(stated)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the step of its weights is no number: {printable(stated)}") from None
