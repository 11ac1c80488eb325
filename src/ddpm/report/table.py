"""The table of a report: a line for each configuration, with means over seeds, the best of each column, and notes."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ddpm.config.groups import group_names
from ddpm.messages import printable
from ddpm.metrics import registry
from ddpm.metrics.registry import Quantity
from ddpm.report import codecs, protocols
from ddpm.report.run import ReportedRun, text
from ddpm.report.settings import varying

PROTOCOL = "protocol"  # the column that tells apart runs of one configuration that were measured differently
VERDICTS = ("PASS", "FAIL")  # any other text says why there is no verdict


@dataclass(frozen=True)
class Column:
    """A number of results.json: `metric` is its name there, `part` which of its numbers."""

    metric: str
    part: str
    quantity: Quantity

    @property
    def title(self) -> str:
        _, comma, split = self.quantity.title.partition(",")
        return self.quantity.title if self.part == "value" else f"{self.part}{comma}{split}"

    @property
    def ranked(self) -> bool:
        return self.part == "value" and self.quantity.better is not None

    def number(self, value: float) -> str:
        return f"{value:.{self.quantity.digits}f}"


@dataclass
class Line:
    """Runs that differ in nothing but the seed."""

    settings: dict[str, str]
    runs: list[ReportedRun]

    @property
    def name(self) -> str:
        """The settings that tell the line from the others; for most groups the option is enough, without the group."""
        known = {key: value for key, value in self.settings.items() if value}
        clear = [key for key in group_names() if known.get(key) != "none"]
        return " ".join(value if key in clear else f"{key}={value}" for key, value in known.items()) or "unknown"

    @property
    def finished(self) -> list[ReportedRun]:
        return [run for run in self.runs if run.finished]

    def values(self, column: Column) -> list[float]:
        """The numbers that are averaged: one for each seed, the mean of its runs where there are several."""
        by_seed: dict[str, list[float]] = {}
        for number, run in enumerate(self.finished):
            if column.part in (parts := run.measured.get(column.metric, {})):
                by_seed.setdefault(_seed(number, run), []).append(parts[column.part])
        return [statistics.fmean(values) for values in by_seed.values()]

    def mean(self, column: Column) -> float | None:
        values = self.values(column)
        return statistics.fmean(values) if values else None

    def shown(self, column: Column) -> str:
        """The mean ± the deviation over seeds; for a single run, the metric's own error (± in brackets)."""
        mean = self.mean(column)
        if mean is None:
            return ""
        return " ".join(filter(None, [column.number(mean), self.aside(column)]))

    def aside(self, column: Column) -> str:
        """What is said beside the mean: its deviation or error, and how many runs have no number to be averaged."""
        missing = f"[{n} not finite]" if (n := self.not_finite(column)) else ""
        return " ".join(filter(None, [self.deviation(column) or self.error(column), missing]))

    def not_finite(self, column: Column) -> int:
        """The number of finished runs that were measured, but whose value of this metric is not finite."""
        found = [run.measured[column.metric] for run in self.finished if column.metric in run.measured]
        return sum("value" not in parts for parts in found)

    def deviation(self, column: Column) -> str:
        return f"± {column.number(self.spread(column))}" if len(self.values(column)) > 1 else ""

    def error(self, column: Column) -> str:
        """The metric's own error, if just one run has the metric."""
        own = self._own_error(column)
        return "" if own is None else f"(± {column.number(own)})"

    def spread(self, column: Column) -> float:
        """The sample deviation over seeds; of a single run the metric's own error, 0 where there is none."""
        values = self.values(column)
        return statistics.stdev(values) if len(values) > 1 else self._own_error(column) or 0.0

    def _own_error(self, column: Column) -> float | None:
        with_it = [run.measured[column.metric] for run in self.finished if column.metric in run.measured]
        if len(with_it) != 1 or column.part != "value" or column.quantity.error is None:
            return None
        return with_it[0].get(column.quantity.error)

    def published(self, column: Column) -> tuple[str, str] | None:
        """The published value, and the verdicts on ours."""
        run = next((run for run in self.runs if run.expected), None)
        entry = run.expected.get(column.metric) if run and column.ranked else None
        if not isinstance(entry, dict) or "value" not in entry:
            return None
        verdicts = Counter(
            run.verdicts[column.metric] if run.verdicts[column.metric] in VERDICTS else "other protocol"
            for run in self.finished
            if column.metric in run.verdicts
        )
        said = [verdict if len(verdicts) == 1 else f"{verdict} × {n}" for verdict, n in verdicts.most_common()]
        return text(entry["value"]), ", ".join(said)

    @property
    def seeds(self) -> str:
        done, all_ = (
            len({_seed(number, run) for number, run in enumerate(runs)}) for runs in (self.finished, self.runs)
        )
        return str(done) if done == all_ else f"{done} of {all_}"

    @property
    def note(self) -> str:
        """How unfinished runs ended, and what could not be read of any."""
        said = [(run, ": ".join(filter(None, ["" if run.finished else run.status, run.why]))) for run in self.runs]
        by_text: dict[str, list[str]] = {}
        for run, why in said:
            if why:
                by_text.setdefault(why, []).append(run.seed or "?")
        several = len(self.runs) > 1
        return "; ".join(f"seed {', '.join(seeds)} {why}" if several else why for why, seeds in by_text.items())


def _seed(number: int, run: ReportedRun) -> str:
    """The run's seed; one that is unknown is like no other."""
    return run.seed or f"unknown {number}"


@dataclass
class Table:
    """The lines and columns of a report, which numbers are the best, and notes to read before quoting them."""

    settings: list[str]
    columns: list[Column]
    lines: list[Line]
    whole_time: bool  # minutes are those of whole runs, which sweeps record; else of the training steps
    best: set[tuple[int, int]] = field(default_factory=set)  # line, column
    notes: list[str] = field(default_factory=list)

    @property
    def minutes_title(self) -> str:
        return "minutes" if self.whole_time else "training minutes"

    def minutes(self, line: Line) -> float | None:
        runs = line.finished
        known = [run.seconds if self.whole_time else run.training_seconds for run in runs]
        seconds = [each for each in known if each is not None]
        return statistics.fmean(seconds) / 60 if seconds else None

    @property
    def published(self) -> list[Column]:
        """The columns that some line has a published value for."""
        return [column for column in self.columns if any(line.published(column) for line in self.lines)]


def of(runs: Sequence[ReportedRun]) -> Table:
    """One line for each configuration."""
    keys = varying(runs)
    lines = _grouped(runs, keys)
    if any(len({run.measure for run in line.finished} - {()}) > 1 for line in lines):
        keys = [*keys, PROTOCOL]
        lines = _grouped(runs, keys)
    measured = {(name, part) for run in runs if run.finished for name, parts in run.measured.items() for part in parts}
    columns = [
        Column(name, part, quantity)
        for name in dict.fromkeys([*registry.known(), *sorted(name for name, _ in measured)])
        if (quantity := registry.of(name)).in_tables
        for part in ("value", "rate", "distortion")
        if (name, part) in measured
    ]
    made = Table(keys, columns, lines, whole_time=all(run.seconds is not None for run in runs))
    differing = protocols.differing(runs)
    if len({frozenset(run.protocol.get("seed") for run in line.finished) for line in lines if line.finished}) == 1:
        differing.pop("seed", None)  # every line has the same noise
    void = [column for column in columns if any(protocols.void(part, column.metric) for part in differing)]
    made.best = {
        (i, j) for j, column in enumerate(columns) if column.ranked and column not in void for i in _best(lines, column)
    }
    made.notes = [*_notes(made, differing, void), *codecs.notes(runs)]
    return made


def _grouped(runs: Sequence[ReportedRun], keys: Sequence[str]) -> list[Line]:
    """The runs grouped by these settings; one without measurements joins the first line of its configuration."""
    lines: dict[tuple[str, ...], Line] = {}
    first = {run.measure: run.fingerprint for run in reversed(runs)}  # what names a measure
    for run in sorted(runs, key=lambda run: not run.fingerprint) if PROTOCOL in keys else runs:
        settings = {key: first[run.measure] if key == PROTOCOL else run.setting(key) for key in keys}
        if not run.config and run.overrides is None:
            settings[keys[0]] = f"({run.folder.name})"  # nothing is known: it is like no other
        same = (key for key in lines if key[:-1] == tuple(settings.values())[:-1])
        place = next(same, None) if PROTOCOL in keys and not run.fingerprint else None
        lines.setdefault(place or tuple(settings.values()), Line(settings, [])).runs.append(run)
    return list(lines.values())


def _best(lines: Sequence[Line], column: Column) -> list[int]:
    """The lines with the best mean, and those that cannot be told from it by the errors that are shown.

    A line with a number that is not finite is not ranked: its mean would be the better for the run that failed.
    """
    means = {i: line.mean(column) for i, line in enumerate(lines) if not line.not_finite(column)}
    known = {i: mean for i, mean in means.items() if mean is not None}
    if not known or column.quantity.better is None:
        return []
    target = column.quantity.best(list(known.values()))
    error = max(lines[i].spread(column) for i, mean in known.items() if mean == target)
    within = {i: math.hypot(error, lines[i].spread(column)) for i in known}
    near = [i for i, mean in known.items() if math.isclose(mean, target, rel_tol=1e-12, abs_tol=within[i])]
    return near if len(near) < len(known) else []


def _notes(made: Table, differing: dict[str, list[str]], void: Sequence[Column]) -> list[str]:
    notes = []
    lines, columns = made.lines, made.columns
    if made.best:
        notes.append("Bold: the best mean of its column, and those within the errors of both from it.")
    if any(line.deviation(column) for line in lines for column in columns):
        notes.append("±: the sample deviation over seeds.")
    with_error = [column for column in columns if any(line.error(column) for line in lines)]
    if with_error:
        error_of = {column.quantity.title.partition(",")[0]: column.quantity.error_is for column in with_error}
        errors = ", ".join(f"of {title} {error}" for title, error in error_of.items())
        notes.append(f"(±): one run, so the metric's own error: {errors}. It says nothing of other seeds.")
    if any(line.mean(column) is not None and line.not_finite(column) for line in lines for column in columns):
        notes.append("[not finite]: so many runs are not in the mean, which is therefore not ranked.")
    if any(0 < len(line.finished) < len(line.runs) for line in lines):
        notes.append("Means are over the runs that finished.")
    for part, values in differing.items():
        if protocols.of_method(part) or any(protocols.void(part, column.metric) for column in columns):
            notes.append(f"Protocols differ in {part}: {printable(' / '.join(values))}.")
    if titles := [column.title for column in void if column.ranked]:
        notes.append(f"Measured by different protocols, so not ranked: {', '.join(titles)}.")
    for source in dict.fromkeys(text(run.expected.get("source", "")) for line in lines for run in line.runs):
        if source and made.published:
            notes.append(f"Published: {source}.")
    verdicts = dict.fromkeys(verdict for line in lines for run in line.finished for verdict in run.verdicts.values())
    others = [verdict.removeprefix("not the published protocol: ") for verdict in verdicts if verdict not in VERDICTS]
    notes += [f"Other protocol than the published one: {reason}." for reason in others]
    if any(made.minutes(line) is not None for line in lines):
        notes.append(
            "Minutes: wall clock of a whole run, evaluation included; the mean over seeds."
            if made.whole_time
            else "Training minutes: the training steps alone, by the throughput in metrics.csv; the mean over seeds."
        )
    return notes
