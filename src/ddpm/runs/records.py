"""What a sweep records of each of its runs: SWEEP/<cell>.json beside the cell's run folder SWEEP/<cell>/."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ddpm.config.moved import translated_overrides
from ddpm.files import write_whole

Status = Literal["waiting", "running", "finished", "refused", "failed", "diverged", "interrupted"]
PLAN = "sweep.json"  # in a sweep's folder: the overrides that it was asked, and the keys that vary
SETTLED: tuple[Status, ...] = ("finished", "diverged")  # what the same command would only repeat


@dataclass
class Cell:
    """One run of a sweep: what it was asked, and how it ended."""

    folder: Path  # of the run; there once it has begun
    overrides: list[str]
    varying: list[str] = field(default_factory=list)  # those of the overrides that the sweep varies
    status: Status = "waiting"
    reason: str = ""
    seconds: float = 0.0  # of all its starts together

    @property
    def name(self) -> str:
        """What tells it from the others: "objective=vlb seed=2"."""
        return " ".join(self.varying) or self.folder.name

    @property
    def number(self) -> int:
        return _number(self.folder) or 0

    @property
    def log(self) -> Path:
        """What it printed, where cells run at the same time."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def write(self) -> None:
        """Record it, whole at any moment."""
        content = {key: value for key, value in asdict(self).items() if key != "folder"}
        write_whole(_file(self.folder), json.dumps(content, indent=2))


def of(folder: Path) -> Cell | None:
    """The cell whose run folder this is; None for a run that no sweep started.

    Raises:
        ValueError: its record is damaged.
    """
    file = _file(folder)
    if not file.is_file():
        return None
    try:
        cell = Cell(folder, **json.loads(file.read_text()))
        cell.overrides, cell.varying = translated_overrides(cell.overrides), translated_overrides(cell.varying)
        return cell
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a sweep's record of a run") from error


def within(sweep: Path) -> list[Cell]:
    """The cells of a sweep's folder, in order; none where it is no sweep's.

    Raises:
        ValueError: a record is damaged.
    """
    return [cell for folder in folders(sweep) if (cell := of(folder))]


def folders(sweep: Path) -> list[Path]:
    """The run folders, begun or not, that a sweep's folder has records of, in their order."""
    found = [record.with_suffix("") for record in sweep.glob("[0-9]*_*.json") if record.is_file()]
    return sorted((folder for folder in found if _number(folder) is not None), key=lambda f: (_number(f), f.name))


def plan(sweep: Path) -> dict[str, list[str]]:
    """What a sweep was asked.

    Raises:
        ValueError: its record is damaged.
    """
    content: dict[str, list[str]] = json.loads((sweep / PLAN).read_text())
    return {name: translated_overrides(texts) for name, texts in content.items()}


def _number(folder: Path) -> int | None:
    digits = folder.name.partition("_")[0]
    return int(digits) if digits.isdecimal() else None


def _file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
