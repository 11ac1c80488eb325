"""Sweep records: a sweep keeps SWEEP/<cell>.json beside the run folder SWEEP/<cell>/ of each of its cells."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ddpm.config import origin
from ddpm.config.moved import translated_overrides
from ddpm.files import write_whole

Status = Literal["waiting", "running", "finished", "refused", "failed", "diverged", "interrupted"]
PLAN = "sweep.json"  # in a sweep's folder: the command, the overrides that it was asked, and the keys that vary
SETTLED: tuple[Status, ...] = ("finished", "diverged")  # running such a cell again would only repeat it


@dataclass
class Cell:
    """The record of one run of a sweep: its overrides, and how it ended."""

    folder: Path  # the run folder, which exists once the run has begun
    overrides: list[str]
    varying: list[str] = field(default_factory=list)  # the overrides that differ between the sweep's cells
    status: Status = "waiting"
    reason: str = ""  # why it was refused or did not finish
    seconds: float = 0.0  # wall clock of all its starts together
    job: str = ""  # the last that ran it, where a scheduler starts the cells

    @property
    def name(self) -> str:
        """The overrides that tell the cell from the others: "objective=vlb seed=2"."""
        return " ".join(self.varying) or self.folder.name

    @property
    def number(self) -> int:
        return _number(self.folder) or 0

    @property
    def log(self) -> Path:
        """The file that holds what the run printed, where cells run at the same time."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def write(self) -> None:
        """Write the record; whoever reads the file sees the old one or the new one, never a part."""
        content = {key: value for key, value in asdict(self).items() if key != "folder"}
        write_whole(_file(self.folder), json.dumps(content, indent=2), shared=True)


def of(folder: Path) -> Cell | None:
    """The record of the run in this folder; None for a run that no sweep started.

    Raises:
        ValueError: the record is damaged.
    """
    file = _file(folder)
    if _number(folder) is None or not file.is_file():
        return None
    try:
        cell = Cell(folder, **json.loads(file.read_text()))
        cell.overrides, cell.varying = translated_overrides(cell.overrides), translated_overrides(cell.varying)
        return cell
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a sweep's record of a run") from error


def within(sweep: Path) -> list[Cell]:
    """The records in a sweep's folder, by number; none in any other folder.

    Raises:
        ValueError: a record is damaged.
    """
    return [cell for folder in folders(sweep) if (cell := of(folder))]


def folders(sweep: Path) -> list[Path]:
    """The run folders, whether they exist yet or not, of which a sweep's folder has records; by number."""
    found = [record.with_suffix("") for record in sweep.glob("[0-9]*_*.json") if record.is_file()]
    return sorted((folder for folder in found if _number(folder) is not None), key=lambda f: (_number(f), f.name))


def plan(sweep: Path) -> dict[str, list[str]]:
    """What is written in `PLAN`: the "overrides" that the sweep was started with, and the keys that are "varying".

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    content = json.loads((sweep / PLAN).read_text())
    return {name: translated_overrides([str(text) for text in content[name]]) for name in ("overrides", "varying")}


def command(sweep: Path) -> str:
    """The command of each cell, "train" or "evaluate".

    Raises:
        OSError, ValueError: the plan is missing or damaged.
    """
    content = json.loads((sweep / PLAN).read_text())
    return str(content.get("command", "train")) if isinstance(content, dict) else "train"


def subject(sweep: Path) -> str:
    """What all cells of the sweep are about; "" where its plan does not say so, or cannot be read."""
    try:
        content = json.loads((sweep / PLAN).read_text())
    except (OSError, ValueError, RecursionError):
        return ""
    return str(content.get("subject", "")) if isinstance(content, dict) else ""


def is_own_plan(sweep: Path) -> bool:
    """Whether the plan is as this user has written it.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    content = json.loads((sweep / PLAN).read_text())
    return isinstance(content, dict) and origin.is_own(content)


def write_plan(sweep: Path, command: str, overrides: list[str], varying: list[str], subject: str = "") -> None:
    """Write what `plan`, `command` and `subject` read, signed as this user's."""
    content = {"command": command, "overrides": overrides, "varying": varying, "subject": subject}
    write_whole(sweep / PLAN, json.dumps(origin.signed(content), indent=2))


def _number(folder: Path) -> int | None:
    digits = folder.name.partition("_")[0]
    return int(digits) if digits.isdecimal() else None


def _file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
