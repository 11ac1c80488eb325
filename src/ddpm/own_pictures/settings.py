"""Settings for pictures of one's own, each with its reason: from what a folder holds, and what a step costs here.

Nothing is read and nothing is timed in this module, which knows numbers only.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import NamedTuple

from ddpm.config.errors import RequestError
from ddpm.own_pictures.pictures import FEW, MAJORITY, Pictures, halvings
from ddpm.training.monitor import fitting_decay

WIDTHS = (32, 64, 128)  # channels of the network's first level; 128 is the paper's
MULTIPLIERS = {
    0: [1],
    1: [1, 2],
    2: [1, 2, 2],
    3: [1, 2, 2, 2],
    4: [1, 1, 2, 2, 2],
    5: [1, 1, 2, 2, 4],
    6: [1, 1, 2, 2, 4, 4],
}
ENOUGH = 60_000  # pictures that the narrowest network is to be shown at 32x32; by experience, as is `pictures_needed`
ROUGH = 4  # a network that is shown less than a quarter of them draws noise: the budget is refused
BATCHES = ((160_000, 32), (1_000_000, 64), (math.inf, 128))  # (pictures shown in the whole run, at most; in a batch)
PATCHES = ((32, 1), (64, 2), (math.inf, 4))  # (pixels of the longer side, at most; of a patch's side)
MARGIN = 0.9  # share of the remaining time that is planned with: a run is slower than its trial
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
LARGEST_IN = {"s": 90, "min": 180 * 60, "h": 48 * 3600, "d": math.inf}  # seconds up to which a unit is used for a time
PICTURES, GRID = 5, 64  # grids of samples that are drawn in a run, at most, and samples in each
EVALUATIONS_OF_TEST = 16  # of the network, for a test picture in a validation
CODING = 0.05  # of the budget, for picture codecs at most
QUIET = 0.8  # share of the time that threads run: 0.99 on quiet cores, 0.66 beside one other program, 0.35 beside two


class Choice(NamedTuple):
    """A proposed setting, `key=value` in Hydra's grammar, and why."""

    key: str
    value: str
    reason: str

    @property
    def word(self) -> str:
        return f"{self.key}={self.value}"


class Cost(NamedTuple):
    """What a trial has measured: seconds of a training step and of an evaluation of the network, for each picture.

    `memory` is the most that was in use, in bytes; None where that is not known. `coding` is the seconds that picture
    codecs take for a picture. `running` is the share of the time that the threads of a CPU were running, which is about
    1 unless other programs want its cores.
    """

    step: float
    evaluation: float
    memory: int | None = None
    coding: float = 0.0
    running: float = 1.0

    @property
    def disturbed(self) -> bool:
        """Whether other programs kept the cores busy, so that a step took longer than it would without them."""
        return self.running < QUIET


@dataclass(frozen=True)
class Rung:
    """A size of pictures and a network for it, by its width and its patches: what is tried, from the cheapest up."""

    height: int
    width: int
    channels: int
    patch_size: int = 1

    @property
    def halvings(self) -> int:
        """How often the network halves the pictures, after the patches have done so."""
        return max(0, halvings(max(self.height, self.width)) - round(math.log2(self.patch_size)))

    @property
    def lowest(self) -> tuple[int, int]:
        """Height and width of the network's lowest level."""
        unit = self.patch_size << self.halvings
        return self.height // unit, self.width // unit

    def in_patches(self) -> "Rung":
        """The rung of the same size and width whose network takes the least time."""
        longer = max(self.height, self.width)
        return replace(self, patch_size=next(side for most, side in PATCHES if longer <= most))

    def finer(self) -> list["Rung"]:
        """The rungs of the same size and width that have smaller patches, down to single pixels."""
        return [replace(self, patch_size=side) for _, side in reversed(PATCHES) if side < self.patch_size]

    def wider(self, channels: int) -> "Rung":
        """The rung of the same size whose network has this many channels."""
        return replace(self, channels=channels)

    @property
    def pictures_needed(self) -> float:
        """Pictures that this network is to be shown in training."""
        size = math.sqrt(self.height * self.width)
        return ENOUGH * (size / 32) ** 2 * math.pow(self.channels / WIDTHS[0], 2.5)

    @property
    def attention(self) -> list[int]:
        """The heights at which the network has attention, as `network.attention_resolutions` counts."""
        lowest, _ = self.lowest
        return [lowest, 2 * lowest] if self.channels > WIDTHS[0] and self.halvings > 1 else [lowest]


def seconds_of(budget: object) -> float:
    """The seconds of a time that a person typed, as 10min.

    Raises:
        RequestError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|d)", str(budget))
    if match is None or not float(match[1]):
        raise RequestError(f"budget={budget} must be a time: 90s, 10min, 2h or 1d")
    return float(match[1]) * UNITS[match[2]]


def of_pictures(pictures: Pictures) -> list[Choice]:
    """The settings that follow from the pictures alone."""
    name = "_".join(["own", *re.findall(r"[\w-]+", PurePath(pictures.name).stem, re.ASCII)])
    made = [Choice("name", name, "by the folder: runs lie in runs/NAME")]
    if pictures.gray == pictures.readable:
        made.append(Choice("data.channels", "1", "no picture has colours, however it is stored"))
    else:
        made.append(Choice("data.channels", "3", f"{pictures.readable - pictures.gray:,} pictures have colours"))
    if pictures.damaged:
        made.append(Choice("data.on_error", "skip", f"{len(pictures.damaged):,} cannot be read, and are left out"))
    return made


def of_rung(rung: Rung, pictures: Pictures, batch: int, precision: str) -> list[Choice]:
    """The settings of the data's size and of the network."""
    height, width = rung.height, rung.width
    aspect = "the aspect ratio that most pictures have"
    if pictures.agreeing < MAJORITY:
        aspect = "square, since their aspect ratios differ: their centres are taken"
    mult, few = MULTIPLIERS[rung.halvings], pictures.train < FEW
    lowest = "{}x{}".format(*rung.lowest)
    patches = "each pixel is one position of the network"
    if (side := rung.patch_size) > 1:
        patches = f"squares of {side}x{side} pixels are one position: 1/{side**2} of the time"
    dropout = "so few pictures are soon known by heart" if few else "there are enough pictures"
    return [
        Choice("data.size", f"[{height},{width}]", aspect),
        Choice("network.channels", str(rung.channels), "the width of the first level"),
        Choice("network.patch_size", str(rung.patch_size), patches),
        Choice("network.channel_mult", _listed(mult), f"halves the pictures down to {lowest}"),
        Choice("network.attention_resolutions", _listed(rung.attention), "where attention sees all of it and is cheap"),
        Choice("network.dropout", "0.1" if few else "0.0", dropout),
        Choice(
            "loader.batch_size",
            str(min(batch, max(1, pictures.train - len(pictures.damaged)))),
            "small, so that there are many steps",
        ),
        Choice("optimizer.lr", f"{3e-3 * WIDTHS[0] / rung.channels:g}", "the narrower the network, the larger"),
        Choice("trainer.precision", precision, "the fastest that this device computes with"),
    ]


def _listed(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"


@dataclass(frozen=True)
class Plan:
    """How a budget is spent: on steps of a batch, on what is measured and drawn beside them.

    Args:
        budget: seconds that are left for the run.
        cost: of the network at hand, for each picture.
        draws: evaluations of the network for a sample.
    """

    budget: float
    cost: Cost
    pictures: Pictures
    batch: int
    draws: int

    @property
    def beside(self) -> float:
        """Seconds for reading the pictures, for drawing and validating during the training, and for codecs."""
        reading = (self.pictures.train + self.pictures.test) * self.pictures.seconds
        validation = self.validated * EVALUATIONS_OF_TEST * self.cost.evaluation
        return reading + self.drawings * (validation + self.drawing) + self.validated * self.cost.coding

    @property
    def drawing(self) -> float:
        """Seconds for a grid of samples."""
        return GRID * self.draws * self.cost.evaluation

    @property
    def drawings(self) -> int:
        """How often that happens in the run: as a tenth of the budget allows."""
        return max(1, min(PICTURES, int(self.budget / 10 / self.drawing)))

    @property
    def evaluation(self) -> float:
        """Seconds for the evaluation: a tenth of the budget."""
        return self.budget / 10

    @property
    def evaluations(self) -> int:
        """How many pictures the network can be evaluated on in the time for the evaluation."""
        return int(self.evaluation / self.cost.evaluation)

    @property
    def validated(self) -> int:
        """Test pictures whose bound is measured: as many as a hundredth of the budget allows in a validation.

        Codecs take them, too, in `CODING` of the budget.
        """
        fits = self.budget / 100 / EVALUATIONS_OF_TEST / self.cost.evaluation
        if self.cost.coding:
            fits = min(fits, CODING * self.budget / self.cost.coding)
        return max(2, min(self.pictures.test, round_down(fits)))

    @property
    def steps(self) -> int:
        """Training steps in the time that is left."""
        left = self.budget - self.beside - self.evaluation
        return max(0, round_down(left / self.cost.step / self.batch))

    def seconds(self, steps: int) -> float:
        """Seconds of a run of so many steps, with all that is beside them."""
        return steps * self.batch * self.cost.step + self.beside + self.evaluation

    @property
    def shown(self) -> int:
        """Pictures that the network is shown."""
        return self.steps * self.batch


def round_down(number: float) -> int:
    """The number's first two digits, the others 0."""
    digits = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return int(number // digits * digits)


def of_plan(plan: Plan, max_steps: int | None = None) -> list[Choice]:
    """The settings of the run's length, which may be given, and of what is measured at its end."""
    steps, evaluations = max_steps or plan.steps, plan.evaluations
    shown = steps * plan.batch
    each = max(1, steps // plan.drawings)
    per_image = max(6, min(50, evaluations // 4 // plan.validated))
    samples = max(100, min(2000, round_down(evaluations / 2 / plan.draws)))
    often = "once, at the end" if plan.drawings == 1 else f"{plan.drawings} times in the run"
    return [
        Choice("max_steps", str(steps), f"what fits: {shown:,} pictures, each {shown / plan.pictures.train:.1f} times"),
        Choice("optimizer.warmup", str(min(500, steps // 10)), "a tenth of the steps, at most 500"),
        Choice("ema.decay", f"{fitting_decay(steps):.4g}", "an average whose half-life is 3 % of the steps"),
        Choice("every.log", str(max(1, min(50, steps // 50))), "enough points for a curve"),
        *(Choice(f"every.{what}", str(each), often) for what in ("validation", "samples", "checkpoint")),
        Choice("evaluate_after", "true", "a tenth of the budget is for it"),
        Choice("evaluation.num_samples", str(samples), "half of the evaluation"),
        Choice("evaluation.bits_per_dim.images", str(plan.validated), "test pictures, in validations, too"),
        Choice("evaluation.bits_per_dim.evaluations", str(per_image), "an unbiased estimate of the bound of each"),
    ]


def budget_for(shown: float, plan: Plan) -> str:
    """A budget, as a person types it, in which a network of this cost is shown so many pictures."""
    seconds = max(plan.budget, 1.0)
    while replace(plan, budget=seconds).shown < shown:
        seconds *= 1.1
    seconds *= 1.1 / MARGIN  # the trials, and what else a run begins with
    unit = next(unit for unit, most in LARGEST_IN.items() if seconds <= most)
    return f"{math.ceil(seconds / UNITS[unit])}{unit}"


def too_short(plan: Plan, rung: Rung) -> str | None:
    """The least budget in which something is learned, where this one is too small for that; else None."""
    least = rung.pictures_needed / ROUGH
    return budget_for(least, plan) if plan.shown < least else None
