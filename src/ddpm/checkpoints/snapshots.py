"""Snapshots of a run's power-function averages, and the average of any length that is made of them afterwards.

RUN/averages/ holds them in files of their own, at most nine: at steps that grow by a factor of 2^(1/4), back to a
quarter of the newest. The averages at the step of a checkpoint are in the checkpoint.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ddpm.checkpoints import safe_reading
from ddpm.checkpoints.checkpoint import Checkpoint, check_weights, misfit
from ddpm.checkpoints.power_function import TOLERANCE, Profile, combination, gamma_of, within_reach
from ddpm.files import write_whole
from ddpm.messages import printable

FOLDER = "averages"  # in a run's folder
STEP = "step"  # in a snapshot's metadata; the first versions did not say it
PREFIX = "power_averages."  # of the averages in a checkpoint's state_dict; their number and the weight's name follow
PER_OCTAVE = 4  # snapshots while the step doubles
OLDEST = 1 / 4  # of the step: what an average of a length of 0.22 weighs before is not missed
NEWEST = 2 ** (-1 / 8)  # of the step: a difference of averages that are closer would magnify their rounding
DTYPE = torch.float16  # half the size; a combination does not magnify its rounding, 2^-12 of a weight


def is_due(step: int) -> bool:
    """Whether there is a snapshot of this step, which depends on nothing else."""
    return step == round(2 ** (round(PER_OCTAVE * math.log2(step)) / PER_OCTAVE))


def write(run: Path, step: int, averages: Mapping[str, Tensor]) -> None:
    """Write the snapshot of a step, whole and on the disk, and remove those that no average needs any more.

    Args:
        averages: by their number in the configuration's `ema.lengths` and the weight's name, "0.conv_in.weight".

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    narrow = {name: value.detach().to("cpu", DTYPE).contiguous() for name, value in averages.items()}
    write_whole(_file(folder, step), save(narrow, metadata={STEP: str(step)}))
    for old, file in _files(folder).items():
        if old < OLDEST * step:
            file.unlink(missing_ok=True)


def average(saved: Checkpoint, names: Collection[str], lengths: Sequence[float], length: float) -> dict[str, Tensor]:
    """The weights of the power-function average of this length at a checkpoint's step, in float32.

    Args:
        names: of the weights.
        lengths: of the averages that the run keeps.

    Raises:
        ValueError: the run has not kept what it takes, in one line; or a file is damaged, or another network's.
    """
    folder = saved.run and saved.run / FOLDER
    if folder is None:
        raise ValueError(f"ema={length:g}: {saved.path} is not in a run's folder, where such averages are kept")
    files = {step: file for step, file in _files(folder).items() if OLDEST * saved.step <= step <= NEWEST * saved.step}
    known = [Profile(step, gamma_of(each)) for step in (*files, saved.step) for each in lengths]
    found = combination(known, Profile(saved.step, gamma_of(length)))
    if found.error > TOLERANCE:
        asked = sorted({*lengths, *(thousandth / 1000 for thousandth in range(5, 289))})
        reach = [f"{shortest:g} to {longest:g}" for shortest, longest in within_reach(known, saved.step, asked)]
        raise ValueError(
            f"ema={length:g} cannot be made of the averages that {saved.run} has kept until step {saved.step:,}: "
            f"choose a length from {' or from '.join(reach)}"
        )
    sources = [*files.values(), saved.path]
    weights = {name: saved.weights[name] for name in names}
    total = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in weights.items()}
    for source, coefficients in zip(sources, found.coefficients.reshape(len(sources), -1), strict=True):
        for averages, coefficient in zip(_read(source, saved, weights, len(lengths)), coefficients, strict=True):
            for name, value in averages.items():
                total[name].add_(value.double(), alpha=float(coefficient))
    return {name: value.float() for name, value in total.items()}


def _read(file: Path, saved: Checkpoint, weights: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The averages in a snapshot or a checkpoint, in their order."""
    if file == saved.path:
        content = {
            name.removeprefix(PREFIX): value
            for name, value in safe_reading.read(file)["state_dict"].items()
            if name.startswith(PREFIX) and name.removeprefix(PREFIX).partition(".")[2] in weights
        }
    else:
        content, about = safe_reading.read_safetensors(file)
        if (step := about.get(STEP)) and file != _file(file.parent, int(step) if step.isdecimal() else -1):
            raise ValueError(f"{file} holds the averages of step {printable(step)}, not of the step in its name")
    expected = {f"{k}.{name}": value for k in range(count) for name, value in weights.items()}
    if problem := misfit(content, expected):
        raise ValueError(f"{file} does not hold the averages of this run: {problem}")
    try:
        check_weights(content)
    except ValueError as error:
        raise ValueError(f"{file} is refused: {error}") from None
    return [{name: content[f"{k}.{name}"] for name in weights} for k in range(count)]


def _file(folder: Path, step: int) -> Path:
    return folder / f"step_{step:07d}.safetensors"


def _files(folder: Path) -> dict[int, Path]:
    """The snapshots by step, in order."""
    found = {}
    for file in folder.glob("step_*.safetensors"):
        number = file.stem.removeprefix("step_")
        if number.isdecimal() and file == _file(folder, int(number)):
            found[int(number)] = file
    return dict(sorted(found.items()))
