"""What the library's functions are given, checked: a wrong argument is told of in one line that says what to give."""

import contextlib
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.config.errors import RequestError
from ddpm.config.grammar import quote_paths
from ddpm.data import given
from ddpm.data.dataset import Dataset
from ddpm.data.kind import IMAGES, POINTS, Kind
from ddpm.diffusion.condition import DROPPED, Condition
from ddpm.diffusion.decoder import ContinuousDecoder
from ddpm.diffusion.guidance import ClassifierFree, Guidance
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler

Labels: TypeAlias = SupportsIndex | Sequence[int] | np.ndarray | Tensor  # one for all examples, or one for each


def words_of(overrides: Iterable[Any]) -> list[str]:
    """Settings as the command line's words.

    Raises:
        RequestError: one is no text.
    """
    if strange := [each for each in overrides if not isinstance(each, str)]:
        raise RequestError(f'{strange[0]!r} is no setting: each is a text of its own, as "max_steps=500"')
    return quote_paths([*overrides])


def word_of_checkpoint(ckpt: Any) -> str:
    """A run, a path or a text as the command line's word.

    Raises:
        RequestError: it is none of these.
    """
    try:
        return f"ckpt={os.fspath(ckpt)}"
    except TypeError:
        raise RequestError(f"{ckpt!r} is no checkpoint: give a run, its folder, or a file") from None


def given_dataset(dataset: Any, overrides: Sequence[str]) -> Dataset | None:
    """The data that were handed over as a dataset of ours, None where none were.

    Raises:
        RequestError: they are no data, or stand beside settings of other data.
    """
    if dataset is None:
        return None
    if clash := [text for text in overrides if text.lstrip("+").startswith("data")]:
        raise RequestError(f"{clash[0]} beside dataset=: the data are what dataset= hands over")
    try:
        return given.of(dataset)
    except ValueError as error:
        raise RequestError(str(error)) from error


def check_process(p: Any) -> None:
    """Refuse what is no reverse process.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(p, ReverseProcess):
        raise ValueError(f"a {type(p).__name__} is no process: give what ddpm.load returns")


def whole_shape(p: ReverseProcess, shape: Any) -> tuple[int, ...]:
    """The shape [n, ...] of a batch of the model's, of which n alone may be given.

    Raises:
        ValueError: it is no shape, or not the model's.
    """
    try:
        sides = [operator.index(side) for side in (shape if isinstance(shape, Iterable) else [shape])]
    except TypeError:
        raise ValueError(f"shape={shape}: give a number of examples, or the shape of all of them") from None
    if len(sides) == 1:
        if p.event_shape is None:
            raise ValueError(f"shape={shape}: only of a process that ddpm.load returns is the rest of the shape known")
        sides += p.event_shape
    if len(sides) < 2 or min(sides) < 0 or (p.event_shape and tuple(sides[1:]) != tuple(p.event_shape)):
        due = f"[n, {', '.join(map(str, p.event_shape))}]" if p.event_shape else "[n, channels, height, width]"
        raise ValueError(f"shape={list(sides)}: examples of this model are {due}")
    return tuple(sides)


def images_of(p: ReverseProcess, images: Any) -> UInt8[Tensor, "n c h w"]:
    """Images of the model's as a tensor.

    Raises:
        ValueError: these are none, or the model is of points.
    """
    if kind_of(p) is not IMAGES:
        raise ValueError("this model is of points, whose bound is a density, in nats: ddpm.evaluate measures it")
    try:
        pixels: Tensor = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"a {type(images).__name__} is no images: give torch.uint8 [n, channels, height, width]"
        ) from None
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise ValueError(f"images are {found}: give torch.uint8 [n, channels, height, width], from 0 to 255")
    whole_shape(p, pixels.shape)
    return pixels


def condition_of(p: ReverseProcess, label: Labels | None, n: int) -> Condition | None:
    """What the network is told of n images whose classes these are, None where it knows no classes.

    Raises:
        ValueError: the model has other classes, or none; none is said where it has some; or it is told an image.
    """
    if sees_image(p):
        raise ValueError(
            "this model is told an image of each example: give it one, as in "
            "ddpm.sample(p.given(ddpm.Condition(image=...)), n); docs/conditioning.md"
        )
    if not (classes := classes_of(p)):
        if label is not None:
            raise ValueError(f"label={label}: this model knows no classes")
        return None
    known = f"0..{classes - 1}"
    if label is None:
        dropped = "" if p.always_conditioned else ", or label=ddpm.DROPPED"
        raise ValueError(f"this model was trained with classes: add label={known}{dropped}")
    try:
        labels = torch.as_tensor(label)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"label={label!r} is no class, of which the model has {known}") from None
    if labels.is_floating_point() or labels.is_complex() or labels.dtype in (torch.bool, torch.uint64):
        raise ValueError(f"label: classes are whole numbers, and these are {labels.dtype}")
    labels = labels.long() if labels.ndim else labels.long().expand(n)
    if labels.shape != (n,):
        raise ValueError(f"label: these are {list(labels.shape)} for {n} images")
    if wrong := [each for each in labels.tolist() if not (each == DROPPED or 0 <= each < classes)]:
        raise ValueError(f"label={wrong[0]}: the model's classes are {known}")
    if p.always_conditioned and DROPPED in labels:
        raise ValueError(f"label=ddpm.DROPPED: this model was always told a class (condition.drop=0), one of {known}")
    return Condition(labels.to(next(p.parameters()).device))


def rule_of(guidance: Any) -> Guidance:
    """A weight as classifier-free guidance; a rule as it is.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(guidance, Guidance):
        return guidance
    try:
        weight = float(guidance)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"guidance={guidance!r}: give a weight, 0 for none, or a Guidance") from None
    return ClassifierFree(weight)


def check_guided(p: ReverseProcess, rule: Guidance) -> None:
    """Refuse a rule that leads a model away from itself without a condition, where the model has never been without.

    Raises:
        ValueError: it has none, or was always told one.
    """
    if rule.needs_dropped and rule.evaluations > 1:
        if not classes_of(p) and not sees_image(p):
            raise ValueError("guidance: this model knows no classes, and there is nothing to lead it by")
        if p.always_conditioned:
            raise ValueError(
                "guidance: this model was never trained without its condition (condition.drop=0), and cannot be led "
                "away from itself without it; ddpm.AutoGuidance leads it away from a weaker network"
            )


def check_sampler(sampler: Any) -> None:
    """Refuse what is no sampler.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(sampler, Sampler):
        raise ValueError(f"sampler={sampler!r}: give a sampler, as ddpm.DDIM(steps=50)")


def generator_of(p: ReverseProcess, seed: Any) -> torch.Generator:
    """The generator of all the noise, where the process is.

    Raises:
        ValueError: that is no seed.
    """
    generator = torch.Generator(next(p.parameters()).device)
    try:
        return generator.manual_seed(operator.index(seed))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"seed={seed!r}: give a whole number of at most 64 bits") from None


@contextlib.contextmanager
def of_float32(p: ReverseProcess) -> Iterator[None]:
    """Say what to do where a network fails whose weights are not float32, as the states of the chain are.

    Raises:
        ValueError: it does.
    """
    try:
        yield
    except RuntimeError as error:
        strange = {weight.dtype for weight in p.network.parameters()} - {torch.float32}
        if not strange or isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"the network's weights are {strange.pop()}, and what it is given is torch.float32: p.float() makes them "
            "so, and within torch.autocast it computes in half precision"
        ) from error


def kind_of(p: ReverseProcess) -> Kind:
    """What the process is of: images, or points in the plane."""
    return POINTS if isinstance(p.decoder, ContinuousDecoder) else IMAGES


def sees_image(p: ReverseProcess) -> bool:
    """Whether the network is told an image."""
    return bool(getattr(p.network, "condition_channels", 0))


def classes_of(p: ReverseProcess) -> int:
    """The number of classes that the network knows, 0 for none."""
    return int(getattr(p.network, "num_classes", 0))
