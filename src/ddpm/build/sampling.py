"""How samples are drawn: the sampler and the guidance of a configuration."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ddpm.build import data
from ddpm.build.model import trained
from ddpm.checkpoints import checkpoint
from ddpm.config.evaluation import NO_SAMPLES, compose_evaluation, is_converted
from ddpm.data.dataset import Dataset
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.instantiate import instantiate
from ddpm.samplers.times import read as read_times


def sampler(config: DictConfig) -> Sampler:
    """The sampler of the configuration, with the times of its file if it names one.

    Raises:
        ValueError: a setting out of range, or a sampler that this schedule does not allow.
    """
    q = ForwardProcess(instantiate(config.schedule, torch.Tensor))
    file = config.sampler.get("times")
    times = {"times": read_times(Path(file).expanduser(), q)} if file else {}
    built = instantiate(config.sampler, Sampler, **times)
    built.steps(q)  # or it would be refused when the first samples are drawn
    return built


def guidance(config: DictConfig, dataset: Dataset) -> Guidance:
    """The way in which samples are guided; a weaker checkpoint that it needs is loaded.

    Raises:
        ValueError: that is missing, or a model that this one cannot be led away from.
    """
    weak = {"weak": _weak(config, dataset)} if "weak" in config.guidance else {}
    return instantiate(config.guidance, Guidance, **weak)


def _weak(config: DictConfig, dataset: Dataset) -> torch.nn.Module:
    """The network of the checkpoint `guidance.weak`, of the same shape, prediction, schedule and condition."""
    if not (path := config.guidance.weak):
        raise ValueError("guidance.weak= is missing: a weaker checkpoint of the same data, as guidance.weak=RUN_FOLDER")
    saved = checkpoint.load(path)
    theirs = compose_evaluation(saved.config, _overrides_of_weak(saved.config, config))
    same = {
        "images": dataset.shape == data.dataset(theirs).shape,
        "prediction": config.prediction == theirs.prediction,
        "schedule": torch.equal(*(instantiate(each.schedule, torch.Tensor) for each in (config, theirs))),
        "condition": {**config.condition, "drop": 0} == {**theirs.condition, "drop": 0},
    }
    if other := [name for name, agrees in same.items() if not agrees]:
        raise ValueError(
            f"guidance.weak={path} is a model of another kind, with other {', '.join(other)}: use one of "
            "the same data and axes that was trained for less long, or is smaller"
        )
    return trained(saved, theirs, dataset).network


def _overrides_of_weak(theirs: dict[str, Any], ours: DictConfig) -> list[str]:
    """The overrides that complete another codebase's file: a sampler for any T, and our recipe if it names none."""
    if not is_converted(theirs):
        return []
    named = any(word.startswith("recipe=") for word in (*theirs["stated"], *theirs["assumed"]))
    return [*NO_SAMPLES, *([] if named else [f"recipe={ours.choices.recipe}"])]
