"""Functions for notebooks, which `import ddpm` offers beside the processes and samplers themselves."""

import contextlib
import csv
import importlib
import json
import math
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.commands import evaluate as evaluate_command
from ddpm.commands import train as train_command
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import path_of, quote, quote_paths
from ddpm.config.saved import read_config
from ddpm.config.which import with_chosen
from ddpm.data import given
from ddpm.data.dataset import Dataset
from ddpm.data.kind import IMAGES, POINTS, Kind
from ddpm.data.pixels import numbers, to_unit
from ddpm.diffusion.condition import DROPPED, Condition
from ddpm.diffusion.decoder import ContinuousDecoder
from ddpm.diffusion.guidance import ClassifierFree, Guidance
from ddpm.diffusion.likelihood import evaluate_bound
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral, Sampler
from ddpm.evaluation.bound import draws_of_x_1
from ddpm.evaluation.results import Results
from ddpm.sweep import sweep
from ddpm.sweep.work import WORKS

Labels: TypeAlias = SupportsIndex | Sequence[int] | np.ndarray | Tensor  # one for all examples, or one for each


@dataclass(frozen=True)
class Run:
    """A run's folder, and what it holds so far."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    def __fspath__(self) -> str:
        """Its folder, so that whatever takes a run folder takes a run."""
        return str(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
        return read_config(self.folder)

    @property
    def metrics(self) -> Any:
        """What was logged, a row for each step: a frame of pandas or polars if one is installed, or else a list."""
        with (self.folder / "metrics.csv").open(newline="") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        for package in ("pandas", "polars"):
            if importlib.util.find_spec(package):
                return importlib.import_module(package).DataFrame(rows)
        return rows

    @property
    def results(self) -> dict[str, Any] | None:
        """The newest evaluation, as results.json has it; None if there is none."""
        file = self.folder / "results.json"
        return dict(json.loads(file.read_text())) if file.is_file() else None

    def load(self, *overrides: str) -> ReverseProcess:
        """The reverse process of the last checkpoint: `ddpm.load`."""
        return load(self.folder, *overrides)

    def samples(
        self,
        n: int = 16,
        sampler: Sampler | None = None,
        seed: int = 0,
        *,
        label: Labels | None = None,
        guidance: float | Guidance | None = None,
    ) -> Shaped[Tensor, "n *event"]:
        """Samples of the last checkpoint, by the run's own sampler and guidance if none are given: `ddpm.sample`.

        A network that is told an image is told what the run's pictures of samples were.
        """
        with request_errors():
            saved = checkpoint.load(str(self.folder))
            config = compose_evaluation(saved.config, [])
            images = build.dataset(config)
            p, drawn_by = _trained(saved, config, images), build.sampler(config) if sampler is None else sampler
        shape = _whole_shape(p, n)
        rule = build.guidance(config, images) if guidance is None else _rule(guidance)
        if label is None and (conditioning := build.conditioning(config)).needs == "image":
            images.prepare()
            condition = conditioning.shown(images, shape[0])
        else:
            condition = _condition(p, label, shape[0])
        return _drawn(p, shape, drawn_by, seed, rule, condition)


def train(*overrides: str, dataset: Any = None, callbacks: Callback | Sequence[Callback] = ()) -> Run:
    """Train, as `ddpm train` does.

    Args:
        overrides: settings as on the command line: "recipe=digits", "max_steps=500".
        dataset: what is learned, in the place of `data=`: an array of uint8 images [n, channels, height, width], a
            PyTorch dataset of such, one of `ddpm.data`, or a pair of these to train and to test on.
        callbacks: of Lightning's Trainer, beside those of every run.

    Raises:
        ddpm.config.errors.RequestError: the request is wrong, in one line; nothing was written.
    """
    callbacks = [callbacks] if isinstance(callbacks, Callback) else callbacks
    if strange := [each for each in callbacks if not isinstance(each, Callback)]:
        raise RequestError(f"callbacks: a {type(strange[0]).__name__} is no callback of Lightning's")
    words = _words(overrides)
    images = _given(dataset, words)
    described = _described(images) if images is not None else []
    return Run(train_command.train([*described, *words], images, callbacks).resolve())


def evaluate(run: Run | str | os.PathLike[str], *overrides: str, dataset: Any = None) -> Results | None:
    """Measure a checkpoint, or make figures of it, as `ddpm evaluate` does.

    Args:
        run: a run, or whatever `ckpt=` takes.
        overrides: settings as on the command line: "sampler=ddim", "evaluation.num_samples=500".
        dataset: the data, of a run to which they were handed over.

    Returns:
        The results, whose `metrics` are numbers by name; None for figures.

    Raises:
        ddpm.config.errors.RequestError: the request is wrong, in one line; nothing was written.
    """
    words = _words([_ckpt(run), *overrides])
    return evaluate_command.evaluate(words, _given(dataset, words))


def multirun(*overrides: str) -> list[Run]:
    """Run every combination of the settings that name several values, as `ddpm train -m` does, and write the report.

    Returns:
        The runs, finished or not, in their order.

    Raises:
        ddpm.config.errors.RequestError: the request is wrong, in one line; nothing was written.
    """
    folder = sweep.carry_out(_words(overrides), WORKS["train"]).resolve()
    return [Run(file.parent) for file in sorted(folder.glob("*/config.yaml"))]


def _words(overrides: Iterable[Any]) -> list[str]:
    """Settings as the command line's words.

    Raises:
        RequestError: one is no text.
    """
    if strange := [each for each in overrides if not isinstance(each, str)]:
        raise RequestError(f'{strange[0]!r} is no setting: each is a text of its own, as "max_steps=500"')
    return quote_paths([*overrides])


def _ckpt(ckpt: Any) -> str:
    try:
        return f"ckpt={os.fspath(ckpt)}"
    except TypeError:
        raise RequestError(f"{ckpt!r} is no checkpoint: give a run, its folder, or a file") from None


def _given(dataset: Any, overrides: Sequence[str]) -> Dataset | None:
    if dataset is None:
        return None
    if clash := [text for text in overrides if text.lstrip("+").startswith("data")]:
        raise RequestError(f"{clash[0]} beside dataset=: the data are what dataset= hands over")
    try:
        return given.of(dataset)
    except ValueError as error:
        raise RequestError(str(error)) from error


def _described(dataset: Dataset) -> list[str]:
    shape = ",".join(map(str, dataset.shape))
    about = {"name": quote(dataset.name), "shape": f"[{shape}]", "content": quote(dataset.fingerprint)}
    about["num_classes"] = str(dataset.num_classes)
    return ["data=given", *(f"data.{key}={value}" for key, value in about.items())]


def load(ckpt: str | os.PathLike[str], *overrides: str) -> ReverseProcess:
    """The reverse process p of a checkpoint, with its averaged weights and, as `p.q`, the forward process.

    Args:
        ckpt: a run, or whatever `evaluate.py ckpt=` takes: a run folder, a file, a diffusers folder, `hf://OWNER/NAME`.
        overrides: settings as on the command line, for what another codebase's file leaves open: "recipe=lsun_church".

    Raises:
        ddpm.config.errors.RequestError: what is wrong with the checkpoint or the overrides, in one line.
    """
    with request_errors():
        words = with_chosen(_words([_ckpt(ckpt), *overrides]))
        saved = checkpoint.load(path_of("ckpt", words))
        config = compose_evaluation(saved.config, words)
        return _trained(saved, config, build.dataset(config))


def _trained(saved: checkpoint.Checkpoint, config: DictConfig, dataset: Dataset) -> ReverseProcess:
    """The process of a checkpoint, which knows what its network was trained on."""
    p = build.trained(saved, config, dataset)
    p.event_shape, p.always_conditioned = dataset.shape, config.condition.get("drop") == 0
    return p


def sample(
    p: ReverseProcess,
    shape: SupportsIndex | Sequence[int],
    sampler: Sampler | None = None,
    seed: int = 0,
    *,
    label: Labels | None = None,
    guidance: float | Guidance = 0.0,
) -> Shaped[Tensor, "n *event"]:
    """Draw images from p, as uint8; of a model of points in the plane, points, as float32.

    Args:
        shape: the shape [n, channels, height, width] of the result, whose last three must be those of the training
            data; or n alone, of a process that was loaded.
        sampler: by default `Ancestral()`, which takes all T steps; `DDIM(steps=50)` takes 50.
        seed: seed of all the noise; the same seed gives other noise on another device.
        label: the class of the images, or of each: of a model that was trained with `condition=label`, and only there;
            `ddpm.DROPPED` for any class.
        guidance: the weight w of classifier-free guidance, 0 for none; or a `ddpm.diffusion.guidance.Guidance`.

    Raises:
        ValueError: another shape than the model's; a label that there is not, one too few, or guidance of a model that
            knows no classes or was never trained without them; or samples that are not numbers.
    """
    _check_process(p)
    whole = _whole_shape(p, shape)
    drawn_by = Ancestral() if sampler is None else sampler
    return _drawn(p, whole, drawn_by, seed, _rule(guidance), _condition(p, label, whole[0]))


def _rule(guidance: Any) -> Guidance:
    if isinstance(guidance, Guidance):
        return guidance
    try:
        weight = float(guidance)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"guidance={guidance!r}: give a weight, 0 for none, or a Guidance") from None
    return ClassifierFree(weight)


def _drawn(
    p: ReverseProcess, shape: Sequence[int], sampler: Any, seed: Any, rule: Guidance, condition: Condition | None
) -> Shaped[Tensor, "n *event"]:
    """Samples of the process that the rule makes of p, given a condition."""
    if not isinstance(sampler, Sampler):
        raise ValueError(f"sampler={sampler!r}: give a sampler, as ddpm.DDIM(steps=50)")
    if rule.needs_dropped and rule.evaluations > 1:
        if not _classes(p) and not _sees_image(p):
            raise ValueError("guidance: this model knows no classes, and there is nothing to lead it by")
        if p.always_conditioned:
            raise ValueError(
                "guidance: this model was never trained without its condition (condition.drop=0), and cannot be led "
                "away from itself without it; ddpm.AutoGuidance leads it away from a weaker network"
            )
    generator = _generator(p, seed)
    device = generator.device
    x_T = torch.randn(*shape, generator=generator, device=device)
    with _of_float32(p):
        *_, last = sampler(rule(p).given(None if condition is None else condition.to(device)), x_T, generator)
    return _kind(p).stored(numbers(last.x_t))


def bits_per_dim(
    p: ReverseProcess, images: UInt8[Tensor, "b c h w"], seed: int = 0, *, label: Labels | None = None
) -> Float[Tensor, " b"]:
    """The variational bound of each image in bits per dimension, as an evaluation has it: x_1 is drawn more than once.

    The network is evaluated T - 1 + `draws_of_x_1(T)` times on all of them.

    Args:
        label: the class of the images, or of each, where the model was trained with classes.

    Raises:
        ValueError: these are no images, or the model is of points; or as `sample`, of labels.
    """
    _check_process(p)
    if _kind(p) is not IMAGES:
        raise ValueError("this model is of points, whose bound is a density, in nats: ddpm.evaluate measures it")
    try:
        images = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"a {type(images).__name__} is no images: give torch.uint8 [n, channels, height, width]"
        ) from None
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images are {found}: give torch.uint8 [n, channels, height, width], from 0 to 255")
    _whole_shape(p, images.shape)
    generator = _generator(p, seed)
    told, x_0 = p.given(_condition(p, label, len(images))), to_unit(images.to(generator.device))
    with _of_float32(p):
        bound = evaluate_bound(told, x_0, generator, draws_of_x_1=draws_of_x_1(p.q.T))
    return bound.bits_per_dim(math.prod(images.shape[1:]))


def _check_process(p: Any) -> None:
    if not isinstance(p, ReverseProcess):
        raise ValueError(f"a {type(p).__name__} is no process: give what ddpm.load returns")


def _generator(p: ReverseProcess, seed: Any) -> torch.Generator:
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
def _of_float32(p: ReverseProcess) -> Iterator[None]:
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


def _whole_shape(p: ReverseProcess, shape: Any) -> tuple[int, ...]:
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


def _kind(p: ReverseProcess) -> Kind:
    return POINTS if isinstance(p.decoder, ContinuousDecoder) else IMAGES


def _sees_image(p: ReverseProcess) -> bool:
    return bool(getattr(p.network, "condition_channels", 0))


def _classes(p: ReverseProcess) -> int:
    return int(getattr(p.network, "num_classes", 0))


def _condition(p: ReverseProcess, label: Labels | None, n: int) -> Condition | None:
    """What the network is told of n images whose classes these are."""
    if _sees_image(p):
        raise ValueError(
            "this model is told an image of each example: give it one, as in "
            "ddpm.sample(p.given(ddpm.Condition(image=...)), n); docs/conditioning.md"
        )
    if not (classes := _classes(p)):
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
