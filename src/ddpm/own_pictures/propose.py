"""Proposes the settings that a command line with `recipe=own` leaves open, for the pictures that it names.

The proposal is words of a command line, put before those that the user typed. What comes of them is an ordinary run.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig

from ddpm import build, launch
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.grammar import as_typed
from ddpm.config.recipes import said_by
from ddpm.data.dataset import readable
from ddpm.data.folder import Folder
from ddpm.figures import drawing
from ddpm.figures.display import display_of
from ddpm.files import write_whole
from ddpm.hardware import device_type
from ddpm.messages import printable, say, typed, visible
from ddpm.own_pictures import pictures, settings
from ddpm.own_pictures.settings import BATCHES, WIDTHS, Choice, Cost, Plan, Rung
from ddpm.own_pictures.survey import survey
from ddpm.own_pictures.trial import trial
from ddpm.progress import duration
from ddpm.runs import folders

STARTUP = 10.0  # seconds in which a run begins and ends
SHEET, REPORT = "data.png", "proposal.txt"


class Tried(NamedTuple):
    """A size and a network that were tried, the settings that make them, and what the budget buys of them."""

    rung: Rung
    choices: list[Choice]
    cost: Cost
    plan: Plan

    @property
    def enough(self) -> bool:
        """Whether the network is shown enough pictures."""
        return self.plan.shown >= self.rung.pictures_needed


class Proposal:
    """What is in the folder of a command line, and the settings that suit it, where the command line leaves a choice.

    Args:
        asked: the words that the user typed, one value for each setting.

    Raises:
        RequestError, ValueError, OSError: they are wrong, or the pictures cannot be read.
    """

    def __init__(self, asked: Sequence[str]) -> None:
        self.begun, self.asked, self.said = time.monotonic(), list(asked), said_by(asked)
        config = compose(asked)
        if config.out:
            folders.check_free(Path(config.out))
        self.budget_said, self.budget = config.budget, settings.seconds_of(config.budget)
        launch.resolve_precision(config)
        self.precision = config.trainer.precision
        self.one_device = self._needs_one_device(config.trainer)
        folder = build.dataset(config)
        if not isinstance(folder, Folder):
            raise RequestError(
                f"settings are proposed for a folder of pictures, and data={config.choices.data} is none: "
                "use data=folder data.path=FOLDER, or budget=null, which proposes nothing"
            )
        self.pictures, self.size = survey(folder), config.size
        self.on_cpu = device_type(config.trainer.accelerator) == "cpu"
        _, height, width = folder.shape
        self.own_shape = (height, width) if "data.size" in self.said else None
        self.own_channels = config.network.get("channels") if "network.channels" in self.said else None
        self.own_patches = config.network.get("patch_size") if "network.patch_size" in self.said else None
        self.steps = config.max_steps if "max_steps" in self.said else None

    def _needs_one_device(self, trainer: DictConfig) -> bool:
        """Whether `trainer.devices=1` must be proposed, since a run would take several processes and a trial takes one.

        Raises:
            RequestError: the user asks for several.
        """
        processes, proposed = launch.count_processes(trainer), False
        if processes > 1 and "trainer.devices" not in self.said:
            one = trainer.copy()
            one.devices = 1
            processes, proposed = launch.count_processes(one), True
        if processes > 1:
            raise RequestError(
                f"settings are proposed by one process, and here are {processes}: use trainer.devices=1, or the words "
                f"that `{typed('inspect')}` proposes"
            )
        return proposed

    def seen(self) -> list[str]:
        """Lines on what is in the folder."""
        return pictures.lines(self.pictures)

    def make(self) -> None:
        """Choose the largest size, then the smallest patches, then the widest network of which the budget buys enough.

        Raises:
            RequestError: the budget is too small for the smallest, or no size is possible.
        """
        shapes, batch = self._shapes(), BATCHES[0 if self.on_cpu else -1][1]
        widths = (
            [self.own_channels] if self.own_channels else WIDTHS if self._is_open("network.channels") else WIDTHS[:1]
        )
        rungs = [self._rung(shape, widths[0]) for shape in shapes]
        best = self._try(rungs[0], batch)
        if best.enough:
            best = self._last_enough(best, rungs[1:], batch)
            if self._is_open("network.patch_size"):
                best = self._last_enough(best, best.rung.finer(), batch)
            best = self._last_enough(best, (best.rung.wider(width) for width in widths[1:]), batch)
        elif self.steps is None and (budget := settings.too_short(best.plan, best.rung)):
            smaller = f", or size={smallest}" if (smallest := pictures.sizes(self.pictures)[0]) < max(shapes[0]) else ""
            raise RequestError(
                f"budget={self.budget_said} is too short here for pictures of {shapes[0][0]}x{shapes[0][1]}: use "
                f"budget={budget}{smaller}{_disturbed(best.cost)}"
            )
        larger = next(size for most, size in BATCHES if best.plan.shown <= most)
        if self.on_cpu and larger > batch:
            best = self._try(best.rung, larger)
        self.chosen = best
        one = Choice("trainer.devices", "1", "on which this is tried; more can be named with budget=null")
        rest = [*best.choices, *settings.of_plan(best.plan, self.steps)]
        self.choices = self._open([one, *rest] if self.one_device else rest)

    @property
    def words(self) -> list[str]:
        """The proposed settings, as words of a command line."""
        return [choice.word for choice in self.choices]

    def report(self) -> list[str]:
        """Lines on the settings and on what they cost."""
        wide = max(map(len, self.words), default=0)
        plan, memory = self.chosen.plan, self.chosen.cost.memory
        needs = f" and {memory / 2**30:.1f} GiB of memory" if memory else ""
        took = duration(plan.seconds(self.steps or plan.steps) + STARTUP)
        lines = [
            "proposed where you left a choice:",
            *(f"  {choice.word:<{wide}}  {choice.reason}" for choice in self.choices),
            f"this takes about {took}{needs}, by a trial on this machine{_disturbed(self.chosen.cost)}",
        ]
        if not self.chosen.enough and self.steps is None:
            needed = settings.budget_for(self.chosen.rung.pictures_needed, plan)
            lines.append(f"samples will be rough: with budget={needed} they have what they need")
        return lines

    def write_sheet(self, folder: Path) -> None:
        """Write a contact sheet of the pictures, as the network is to see them, into a folder."""
        images = build.dataset(self._config(self.words))
        drawing.save(display_of(images).sheet(images.split("train")), folder / SHEET)

    def write(self, folder: Path) -> None:
        """Write the report into a folder."""
        again = typed("train", *as_typed(settled(self.asked, self.words)))
        lines = [*self.seen(), *self.report(), "the same run, in which nothing is proposed:"]
        write_whole(folder / REPORT, "\n".join([*map(printable, lines), visible(again), ""]))

    # --- trials ------------------------------------------------------------------------------------------------------

    def _shapes(self) -> list[tuple[int, int]]:
        """Height and width of the pictures that can be learned, ascending."""
        if self.own_shape:
            return [self.own_shape]
        return [pictures.shape(self.pictures, size) for size in pictures.sizes(self.pictures, self.size)]

    def _rung(self, shape: tuple[int, int], channels: int) -> Rung:
        """The cheapest rung of this shape and width that the user has left open."""
        rung = Rung(*shape, channels, self.own_patches or 1)
        return rung.in_patches() if self._is_open("network.patch_size") else rung

    def _last_enough(self, best: Tried, rungs: Iterable[Rung], batch: int) -> Tried:
        """The last of these rungs, each dearer than the one before, of which the budget buys enough."""
        for rung in rungs:
            tried = self._try(rung, batch)
            if not tried.enough:
                break
            best = tried
        return best

    def _try(self, rung: Rung, batch: int) -> Tried:
        """Train a network of this rung for a few steps."""
        choices = [*settings.of_pictures(self.pictures), *settings.of_rung(rung, self.pictures, batch, self.precision)]
        config = self._config([choice.word for choice in self._open(choices)])
        images, n = build.dataset(config), config.loader.batch_size
        module, examples = build.module(config, images), images.split("train")
        some = readable(examples, n)
        conditioning = build.conditioning(config)
        conditioning.check(images)
        cost = trial(module, conditioning.batch(examples, (some * n)[:n]), config)
        left = settings.MARGIN * (self.budget - (time.monotonic() - self.begun) - STARTUP)
        draws = config.sampler.get("steps") or config.schedule.T
        return Tried(rung, choices, cost, Plan(left, cost, self.pictures, n, draws))

    def _config(self, words: Sequence[str]) -> DictConfig:
        """The configuration with these settings, for one process, in which pictures are read as they are needed."""
        config = compose([*words, *self.asked])
        config.trainer.precision, config.data.on_error, config.data.array_gib = self.precision, "raise", 0.0
        config.trainer.devices = 1 if self.one_device else config.trainer.devices
        return config

    def _open(self, choices: Sequence[Choice]) -> list[Choice]:
        return [choice for choice in choices if self._is_open(choice.key)]

    def _is_open(self, key: str) -> bool:
        """Whether the user has said neither this nor, where it is a setting of a class, which class it is."""
        section = key.partition(".")[0]
        return key not in self.said and (section == "data" or section not in self.said)


def _disturbed(cost: Cost) -> str:
    """What to do about other programs on the same cores, where a trial was slow because of them."""
    if not cost.disturbed:
        return ""
    fewer = f", or set OMP_NUM_THREADS={threads // 2}" if (threads := torch.get_num_threads()) > 1 else ""
    return f"; other programs keep the cores busy, which makes it several times slower: wait for their end{fewer}"


def propose(overrides: Sequence[str]) -> Proposal:
    """Look at the folder that a command line names, try networks, and print what is found and proposed.

    Raises:
        RequestError, ValueError, OSError: as `Proposal` and `Proposal.make`.
    """
    proposal = Proposal(overrides)
    say(*proposal.seen())
    proposal.make()
    say(*proposal.report())
    return proposal


def settled(asked: Sequence[str], words: Sequence[str]) -> list[str]:
    """The command line `asked` with the words of a proposal, which asks for no proposal any more."""
    return [*words, *(word for word in asked if not word.startswith("budget=")), "budget=null"]
