"""Functions for notebooks, which `import ddpm` offers beside the processes and samplers themselves."""

import csv
import importlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.commands import evaluate as evaluate_command
from ddpm.commands import train as train_command
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import path_of, quote, quote_paths
from ddpm.config.saved import read_config
from ddpm.config.which import with_chosen
from ddpm.data import given
from ddpm.data.dataset import Dataset
from ddpm.data.kind import IMAGES, POINTS, Kind
from ddpm.data.pixels import to_unit
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
        """Samples of the last checkpoint, by the run's own sampler and guidance if none are given: `ddpm.sample`."""
        saved = checkpoint.load(str(self.folder))
        config = compose_evaluation(saved.config, [])
        images = build.dataset(config)
        p, drawn_by = build.trained(saved, config, images), sampler or build.sampler(config)
        guidance = build.guidance(config, images) if guidance is None else guidance
        return sample(p, (n, *images.shape), drawn_by, seed, label=label, guidance=guidance)


def train(*overrides: str, dataset: Any = None, callbacks: Sequence[Callback] = ()) -> Run:
    """Train, as `ddpm train` does.

    Args:
        overrides: settings as on the command line: "recipe=digits", "max_steps=500".
        dataset: what is learned, in the place of `data=`: an array of uint8 images [n, channels, height, width], a
            PyTorch dataset of such, one of `ddpm.data`, or a pair of these to train and to test on.
        callbacks: of Lightning's Trainer, beside those of every run.

    Raises:
        ddpm.config.errors.RequestError: the request is wrong, in one line; nothing was written.
    """
    images = _given(dataset, overrides)
    described = _described(images) if images else []
    return Run(train_command.train([*described, *quote_paths(overrides)], images, callbacks).resolve())


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
    ckpt = run.folder if isinstance(run, Run) else run
    return evaluate_command.evaluate(
        [*quote_paths([f"ckpt={os.fspath(ckpt)}", *overrides])], _given(dataset, overrides)
    )


def multirun(*overrides: str) -> list[Run]:
    """Run every combination of the settings that name several values, as `ddpm train -m` does, and write the report.

    Returns:
        The runs, finished or not, in their order.

    Raises:
        ddpm.config.errors.RequestError: the request is wrong, in one line; nothing was written.
    """
    folder = sweep.carry_out(quote_paths(overrides), WORKS["train"]).resolve()
    return [Run(file.parent) for file in sorted(folder.glob("*/config.yaml"))]


def _given(dataset: Any, overrides: Sequence[str]) -> Dataset | None:
    if dataset is None:
        return None
    if clash := [text for text in overrides if text.lstrip("+").startswith("data")]:
        raise RequestError(f"{clash[0]} beside dataset=: the data are what dataset= hands over")
    try:
        return given.of(dataset)
    except ValueError as error:
        raise RequestError(str(error)) from error


def _described(images: Dataset) -> list[str]:
    shape = ",".join(map(str, images.shape))
    about = {"name": quote(images.name), "shape": f"[{shape}]", "content": quote(images.fingerprint)}
    about["num_classes"] = str(images.num_classes)
    return ["data=given", *(f"data.{key}={value}" for key, value in about.items())]


def load(ckpt: str | os.PathLike[str], *overrides: str) -> ReverseProcess:
    """The reverse process p of a checkpoint, with its averaged weights and, as `p.q`, the forward process.

    Args:
        ckpt: whatever `evaluate.py ckpt=` takes: a run folder, a file, a diffusers folder, `hf://OWNER/NAME`.
        overrides: settings as on the command line, for what another codebase's file leaves open: "recipe=lsun_church".

    Raises:
        FileNotFoundError, ImportError, ValueError, ddpm.config.errors.RequestError: what is wrong with the checkpoint
            or the overrides, in one line.
    """
    words = with_chosen(quote_paths([f"ckpt={os.fspath(ckpt)}", *overrides]))
    saved = checkpoint.load(path_of("ckpt", words))
    config = compose_evaluation(saved.config, words)
    images = build.dataset(config)
    p = build.trained(saved, config, images)
    p.event_shape = images.shape
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
        ValueError: a label that there is not, one too few, or guidance of a model that knows no classes.
    """
    if not isinstance(shape, Sequence):
        if p.event_shape is None:
            raise ValueError(f"shape={shape}: only of a process that ddpm.load returns is the rest of the shape known")
        shape = (int(shape), *p.event_shape)
    rule = guidance if isinstance(guidance, Guidance) else ClassifierFree(float(guidance))
    if rule.needs_dropped and rule.evaluations > 1 and not _classes(p):
        raise ValueError("guidance: this model knows no classes, and there is nothing to lead it by")
    device = next(p.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    x_T = torch.randn(*shape, generator=generator, device=device)
    *_, last = (sampler or Ancestral())(_told(rule(p), label, shape[0], _classes(p)), x_T, generator)
    return _kind(p).stored(last.x_t)


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
    if _kind(p) is not IMAGES:
        raise ValueError("this model is of points, whose bound is a density, in nats: ddpm.evaluate measures it")
    images = torch.as_tensor(images)
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images are {found}: give torch.uint8 [n, channels, height, width], from 0 to 255")
    device = next(p.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    given = _told(p, label, len(images), _classes(p))
    bound = evaluate_bound(given, to_unit(images.to(device)), generator, draws_of_x_1=draws_of_x_1(p.q.T))
    return bound.bits_per_dim(math.prod(images.shape[1:]))


def _kind(p: ReverseProcess) -> Kind:
    return POINTS if isinstance(p.decoder, ContinuousDecoder) else IMAGES


def _classes(p: ReverseProcess) -> int:
    return int(getattr(p.network, "num_classes", 0))


def _told(p: ReverseProcess, label: Labels | None, n: int, classes: int) -> ReverseProcess:
    """The process, told the classes of n images."""
    if not classes:
        if label is not None:
            raise ValueError(f"label={label}: this model knows no classes")
        return p
    if label is None:
        raise ValueError(f"this model was trained with classes: add label=0..{classes - 1}, or label=ddpm.DROPPED")
    labels = torch.as_tensor(label)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"label: classes are whole numbers, and these are {labels.dtype}")
    labels = labels.long() if labels.ndim else labels.long().expand(n)
    if labels.shape != (n,):
        raise ValueError(f"label: there are {len(labels)} for {n} images")
    if wrong := [each for each in labels.tolist() if not (each == DROPPED or 0 <= each < classes)]:
        raise ValueError(f"label={wrong[0]}: the model's classes are 0..{classes - 1}")
    return p.given(Condition(labels.to(next(p.parameters()).device)))
