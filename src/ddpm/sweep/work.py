"""What the cells of a sweep do: each is trained, or each evaluates one checkpoint."""

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ddpm.config.compose import compose
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import as_typed, parse, path_of, quote
from ddpm.config.recipes import proposes
from ddpm.config.which import with_chosen
from ddpm.runs import records
from ddpm.sweep import grid

# Settings of a sweep's runs unless its command says otherwise: a table needs evaluations, and for comparing runs an
# estimate of the bound is enough.
DEFAULTS = {"evaluate_after": "true", "evaluation.bits_per_dim.evaluations": "50"}


class TrainingCells:
    """Each cell is a run."""

    command = "train"
    known_to_hydra = True  # the overrides are of conf/train.yaml

    def prepared(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of a sweep as its plan keeps them, with what is proposed for all of its runs together.

        Raises:
            RequestError: the runs would need a proposal each.
        """
        if not proposes(overrides):
            return list(overrides)
        for key in grid.varying(overrides):
            if key in ("budget", "size") or key.partition(".")[0] == "data":
                raise RequestError(
                    f"{key}: the runs of a sweep share what is proposed for them; start these one by one"
                )
        with request_errors():
            own_pictures = importlib.import_module("ddpm.own_pictures.propose")
            proposal = own_pictures.propose(grid.first(overrides))
        settled: list[str] = own_pictures.settled(overrides, proposal.words)
        return settled

    def subject(self, overrides: Sequence[str]) -> str:
        """Name what must be the same when the sweep goes on, beside its words: of trainings, nothing."""
        return ""

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a cell.

        Raises:
            RequestError: an override is wrong, or the combination cannot work (RefusedError).
        """
        return compose(with_chosen(self._with_defaults(overrides)))

    def words(self, cell: records.Cell) -> list[str]:
        """The command line of a cell's process, as `python -m` takes it."""
        return ["ddpm", "train", *as_typed(self._with_defaults(cell.overrides)), f"out={cell.folder}", "resume=auto"]

    def _with_defaults(self, overrides: Sequence[str]) -> list[str]:
        said = {text.partition("=")[0].lstrip("+") for text in overrides}
        return [*overrides, *(f"{key}={value}" for key, value in DEFAULTS.items() if key not in said)]


class EvaluationCells:
    """Each cell is an evaluation of the same checkpoint."""

    command = "evaluate"
    known_to_hydra = False  # they are of the checkpoint's configuration

    def prepared(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of a sweep as its plan keeps them: with the checkpoint where it is now, since a link may move.

        Raises:
            RequestError: there is no checkpoint, or the sweep asks for pictures.
        """
        _saved.cache_clear()  # in a session of Python an earlier request may have had the same path
        _digest.cache_clear()
        ckpt = path_of("ckpt", overrides)
        if Path(ckpt).exists():
            ckpt = str(Path(ckpt).resolve())
        elif "," in ckpt:
            raise RequestError(f"ckpt={ckpt}: the evaluations of a sweep are of one checkpoint, and there is none here")
        others = [
            text for text, override in zip(overrides, parse(overrides), strict=True) if override.key_or_group != "ckpt"
        ]
        if any(override.key_or_group == "figures" for override in parse(others)):
            raise RequestError("figures= makes pictures, and a sweep a table of numbers: leave -m or figures= away")
        return [f"ckpt={quote(ckpt)}", *others]

    def subject(self, overrides: Sequence[str]) -> str:
        """Name what must be the same when the sweep goes on, beside its words: the weights, by their digest."""
        return _digest(path_of("ckpt", with_chosen(overrides)))

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a cell.

        Raises:
            RequestError: an override is wrong, or the combination cannot work (RefusedError).
        """
        overrides = with_chosen(overrides)
        return compose_evaluation(_saved(path_of("ckpt", overrides)), overrides)

    def words(self, cell: records.Cell) -> list[str]:
        """The command line of a cell's process, as `python -m` takes it."""
        return ["ddpm", "evaluate", *as_typed(cell.overrides), f"out={cell.folder}"]


@functools.lru_cache(maxsize=1)  # all cells have the same
def _saved(ckpt: str) -> dict[str, Any]:
    """The configuration in a checkpoint."""
    config: dict[str, Any] = _load(ckpt).config
    return config


@functools.lru_cache(maxsize=1)
def _digest(ckpt: str) -> str:
    """The digest of a checkpoint's weights, which the sweep needs and its cells do not."""
    digest: str = _checkpoints().digest_of(_load(ckpt).weights)
    return digest


def _load(ckpt: str) -> Any:
    with request_errors():
        return _checkpoints().load(ckpt)


def _checkpoints() -> Any:
    return importlib.import_module("ddpm.checkpoints.checkpoint")  # a sweep of runs does not wait for torch


Work = TrainingCells | EvaluationCells
WORKS: dict[str, Work] = {work.command: work for work in (TrainingCells(), EvaluationCells())}
