"""Functions for notebooks, which `import ddpm` offers beside the processes and samplers themselves."""

import csv
import importlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, Shaped, UInt8
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor

from ddpm import build
from ddpm.arguments import (
    Labels,
    check_guided,
    check_process,
    check_sampler,
    condition_of,
    generator_of,
    given_dataset,
    images_of,
    kind_of,
    of_float32,
    rule_of,
    whole_shape,
    word_of_checkpoint,
    words_of,
)
from ddpm.checkpoints import checkpoint
from ddpm.commands import evaluate as evaluate_command
from ddpm.commands import train as train_command
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import path_of, quote
from ddpm.config.saved import read_config
from ddpm.config.which import with_chosen
from ddpm.data.dataset import Dataset
from ddpm.data.pixels import numbers, to_unit
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.likelihood import evaluate_bound
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral, Sampler
from ddpm.evaluation.bound import draws_of_x_1
from ddpm.evaluation.results import Results
from ddpm.sweep import sweep
from ddpm.sweep.work import WORKS


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
        shape = whole_shape(p, n)
        rule = build.guidance(config, images) if guidance is None else rule_of(guidance)
        if label is None and (conditioning := build.conditioning(config)).needs == "image":
            images.prepare()
            condition = conditioning.shown(images, shape[0])
        else:
            condition = condition_of(p, label, shape[0])
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
    words = words_of(overrides)
    images = given_dataset(dataset, words)
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
    words = words_of([word_of_checkpoint(run), *overrides])
    return evaluate_command.evaluate(words, given_dataset(dataset, words))


def multirun(*overrides: str) -> list[Run]:
    """Run every combination of the settings that name several values, as `ddpm train -m` does, and write the report.

    Returns:
        The runs, finished or not, in their order.

    Raises:
        ddpm.config.errors.RequestError: the request is wrong, in one line; nothing was written.
    """
    folder = sweep.carry_out(words_of(overrides), WORKS["train"]).resolve()
    return [Run(file.parent) for file in sorted(folder.glob("*/config.yaml"))]


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
        words = with_chosen(words_of([word_of_checkpoint(ckpt), *overrides]))
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
    check_process(p)
    whole = whole_shape(p, shape)
    drawn_by = Ancestral() if sampler is None else sampler
    return _drawn(p, whole, drawn_by, seed, rule_of(guidance), condition_of(p, label, whole[0]))


def _drawn(
    p: ReverseProcess, shape: Sequence[int], sampler: Any, seed: Any, rule: Guidance, condition: Condition | None
) -> Shaped[Tensor, "n *event"]:
    """Samples of the process that the rule makes of p, given a condition."""
    check_sampler(sampler)
    check_guided(p, rule)
    generator = generator_of(p, seed)
    device = generator.device
    x_T = torch.randn(*shape, generator=generator, device=device)
    with of_float32(p):
        *_, last = sampler(rule(p).given(None if condition is None else condition.to(device)), x_T, generator)
    return kind_of(p).stored(numbers(last.x_t))


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
    check_process(p)
    images = images_of(p, images)
    generator = generator_of(p, seed)
    told, x_0 = p.given(condition_of(p, label, len(images))), to_unit(images.to(generator.device))
    with of_float32(p):
        bound = evaluate_bound(told, x_0, generator, draws_of_x_1=draws_of_x_1(p.q.T))
    return bound.bits_per_dim(math.prod(images.shape[1:]))
