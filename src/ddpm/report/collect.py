"""Read run folders for a report. Files may be half-written or come from strangers; a run keeps what could not be read.

Nothing is read that is larger than any file of ours, is not a plain file, or lies outside of its run's folder.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse
from ddpm.config.roles import PRESETS
from ddpm.config.saved import read_config
from ddpm.report import published
from ddpm.runs import records

SKIPPED = ("evaluations", "wandb")  # folders in which no runs are looked for
LARGEST = 1 << 25  # bytes of a file that is read; a metrics.csv of 800,000 steps has 3 MB
LONGEST = 1000  # characters of a text that is shown
TERMS = ("t", "term")
RATES = ("rate_bits_per_dim", "rmse")

Curve = tuple[list[float], list[float]]  # x and y, of equal length


@dataclass
class Run:
    """One run as its files describe it: its settings, how it ended, what was measured."""

    folder: Path
    status: str
    reason: str = ""
    overrides: dict[str, str] | None = None  # for a sweep's run only
    seconds: float | None = None  # for a sweep's run only: of all its starts together, evaluation included
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # finite numbers only
    protocol: dict[str, str] = field(default_factory=dict)  # leaves by their dotted names
    verdicts: dict[str, str] = field(default_factory=dict)  # by metric, against the published value
    history: dict[str, Curve] = field(default_factory=dict)  # the columns of metrics.csv, over steps
    terms: Curve = field(default_factory=lambda: ([], []))  # of the bound, over t
    rates: Curve = field(default_factory=lambda: ([], []))  # distortion over rate
    problems: list[str] = field(default_factory=list)  # what could not be read

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def why(self) -> str:
        """Why the run did not finish, and what could not be read of it."""
        return "; ".join([self.reason] * bool(self.reason) + self.problems)

    @cached_property
    def choices(self) -> dict[str, str]:
        """The option that was chosen for each group."""
        chosen = self.config.get("choices")
        return {str(group): text(option) for group, option in chosen.items()} if isinstance(chosen, dict) else {}

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every leaf of the configuration, by its dotted name."""
        tree = {key: value for key, value in self.config.items() if key != "choices"}
        return {key: text(value) for key, value in published.flat(tree).items()}

    @property
    def seed(self) -> str:
        return self.setting("seed")

    def setting(self, key: str) -> str:
        """The option of a group, or the value of a dotted key, by the configuration or, without one, the overrides."""
        found = self.choices.get(key, self.settings.get(key))
        if found is None and key in PRESETS and self.choices:
            return "none"
        return (self.overrides or {}).get(key, "") if found is None else found

    def knows(self, key: str) -> bool:
        """Whether `setting` has something to go by; a run that never began has no configuration, only overrides."""
        return bool(self.config) or key in (self.overrides or {})

    @property
    def fingerprint(self) -> str:
        return self.protocol.get("fingerprint", "")

    @property
    def expected(self) -> dict[str, Any]:
        """The published values: `source`, and value and tolerance by metric."""
        try:
            return dict(published.expected(self.config))
        except (AttributeError, KeyError, TypeError, ValueError):
            return {}

    @property
    def training_seconds(self) -> float | None:
        """Wall clock of the training steps alone, by the throughput in metrics.csv."""
        try:
            batch = float(self.config["loader"]["batch_size"])
        except (KeyError, TypeError, ValueError):
            return None
        steps, rate = self.history.get("train/images_per_second", ([], []))
        spans = zip([0.0, *steps], steps, rate, strict=False)
        seconds = sum((end - begin) * batch / per_second for begin, end, per_second in spans if per_second > 0)
        return seconds or None


def within(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, each once: those of a sweep in the order of its records, others by path."""
    seen: set[Path] = set()
    return [run for folder in folders for run in _within(folder, seen)]


def _within(folder: Path, seen: set[Path]) -> Iterator[Run]:
    """The runs in a folder. Links are followed last, so that a run is listed under its own folder, not under a link."""
    folder = folder.resolve()
    if folder in seen:
        return
    seen.add(folder)
    try:
        is_run = (folder / "config.yaml").is_file()
        recorded = [] if is_run else records.folders(folder)
        inside = [] if is_run else [path for path in folder.iterdir() if path.is_dir() and path not in recorded]
    except OSError:  # not ours to read
        return
    if is_run:
        yield _read(folder)
    for path in recorded:
        if path not in seen and (path.is_dir() or _cell(path)[0]):
            seen.add(path)
            yield _read(path)
    for path in sorted(inside, key=lambda path: (path.is_symlink(), path.name)):
        if path.name not in SKIPPED and not path.name.startswith("."):
            yield from _within(path, seen)


def _read(folder: Path) -> Run:
    run = Run(folder, "")
    cell, problem = _cell(folder)
    if cell:
        run.status, run.reason = shown(cell.status), shown(cell.reason)
        run.overrides, run.seconds = overrides(cell.overrides), cell.seconds
    run.problems += [problem] if problem else []
    if bounded(run, folder / "config.yaml") is not None:
        try:
            run.config = read_config(folder)
        except ValueError as error:
            run.problems.append(shown(str(error).replace(f"{folder}/", "")))
    _read_results(run)
    _read_curves(run)
    if not cell:
        run.status, run.reason = _end(run)
    return run


def _cell(folder: Path) -> tuple[records.Cell | None, str]:
    """The sweep record of a run, and what is wrong with it, or ""."""
    file = folder.with_name(f"{folder.name}.json")
    try:
        _check(file, folder.parent)
        cell = records.of(folder)
        if cell:
            texts = [cell.status, cell.reason, *cell.overrides]
            if not all(isinstance(each, str) for each in texts) or _number(cell.seconds) is None:
                raise ValueError("wrong types")
    except (OSError, ValueError, TypeError, RecursionError):
        return None, shown(f"{file.name} is not a sweep's record of a run") if file.exists() else ""
    return cell, ""


def overrides(said: Sequence[str]) -> dict[str, str]:
    """Overrides by key, with values as the configuration would show them."""
    found = {}
    for override in said:
        try:
            (parsed,) = parse([override])
            found[shown(parsed.key_or_group)] = text(parsed.value())
        except RequestError:
            key, _, value = override.partition("=")
            found[shown(key)] = shown(value)
    return found


def _read_results(run: Run) -> None:
    content = _json(run, "results.json")
    if content is None:
        return
    try:
        for name, parts in content["metrics"].items():
            numbers = {shown(part): _number(value) for part, value in parts.items()}
            run.metrics[shown(name)] = {part: value for part, value in numbers.items() if value is not None}
            if "value" in parts and "value" not in run.metrics[shown(name)]:
                run.problems.append(shown(f"{name} is {parts['value']}"))
        run.protocol = {shown(key): text(value) for key, value in published.flat(content["protocol"]).items()}
        for entry in content.get("published", []):
            run.verdicts[shown(entry["metric"])] = shown(entry["verdict"])
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        run.problems.append("results.json is not complete")


def _read_curves(run: Run) -> None:
    table = _csv(run, "metrics.csv", "step")
    run.history = {name: _pairs(table, "step", name) for name in table if name != "step"}
    run.terms = _pairs(_csv(run, "bound.csv", *TERMS), *TERMS)
    run.rates = _pairs(_csv(run, "rate_distortion.csv", *RATES), *RATES)


def _pairs(table: dict[str, list[float | None]], x: str, y: str) -> Curve:
    """The points (x, y) of two columns, where both have a number."""
    rows = zip(table.get(x, []), table.get(y, []), strict=True) if table.keys() >= {x, y} else ()
    known = [(a, b) for a, b in rows if a is not None and b is not None]
    return [a for a, _ in known], [b for _, b in known]


def _end(run: Run) -> tuple[str, str]:
    """Status and reason of a run that has no sweep record, as far as its files say."""
    step = max((steps[-1] for steps, _ in run.history.values() if steps), default=0)
    due = _number(run.config.get("max_steps"))
    if run.metrics or (due is not None and step >= due):
        return "finished", ""
    return "unfinished", f"step {step:,.0f} of {due:,.0f}" if due is not None else ""


def bounded(run: Run, file: Path) -> bytes | None:
    """The content of a run's file; None if there is none or it is not to be read, which the run's problems then say."""
    try:
        _check(file, run.folder)
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        run.problems.append(shown(f"{file.relative_to(run.folder)}: {why}"))
        return None


def _check(file: Path, folder: Path) -> None:
    """Check that a file is one that may be read.

    Raises:
        OSError, ValueError: it is not.
    """
    if file.stat().st_size > LARGEST:
        raise ValueError("larger than any of ours")
    if not file.is_file():
        raise ValueError("not a file")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError("leads out of the folder")


def _json(run: Run, name: str) -> dict[str, Any] | None:
    content = bounded(run, run.folder / name)
    if content is None:
        return None
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        run.problems.append(f"{name} is not complete")
        return None
    return tree


def _csv(run: Run, name: str, *due: str) -> dict[str, list[float | None]]:
    """The columns of a table of numbers, up to the first damaged line; `due` are columns that it must have."""
    content = bounded(run, run.folder / name)
    if content is None:
        return {}
    reader = csv.reader(io.StringIO(content.decode(errors="replace"), newline=""), strict=True)
    try:
        heading = next(reader, [])
        columns: dict[str, list[float | None]] = {shown(column): [] for column in heading}
        for line in reader:
            if len(line) != len(columns):
                raise ValueError
            numbers = [float(each) if each else None for each in line]
            for values, number in zip(columns.values(), numbers, strict=True):
                values.append(number if number is not None and math.isfinite(number) else None)
    except (ValueError, csv.Error):
        run.problems.append(f"{name} is damaged from line {reader.line_num}")
    if missing := [column for column in due if column not in columns]:
        run.problems.append(f"{name} has no column {' and '.join(missing)}")
    return columns


def _number(value: Any) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def text(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return shown(f"[{','.join(map(text, value))}]")
    return shown(str(value))


def shown(value: Any) -> str:
    """Any value as one printable line of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    line = line.encode("utf-8", "replace").decode()
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
