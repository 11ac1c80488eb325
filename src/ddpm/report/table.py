"""Rows become lines, one for each configuration: means over seeds, the best of each column, published values, notes."""

import math
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ddpm import cli, quantities
from ddpm.quantities import Quantity
from ddpm.report.collect import PRESETS, Run, shown, text

# What makes no configuration another: where a run is kept, how it is watched, how long an interrupted one may go on.
BOOKKEEPING = (
    "out", "resume", "name", "seed", "expected", "logger", "every", "evaluate_after", "ckpt", "keep", "foreign",
    "data.path", "data.root", "data.num_workers", "data.array_gib", "hydra",
)  # fmt: skip
HARDWARE = ("trainer",)  # a setting only where a sweep varies it
MEASURING = ("evaluation", "features")  # said by the protocol of what was measured
# Parts of a protocol, by the beginning of their names. The compared method's may differ; each of the others matters to
# these metrics, and what is not listed to all.
OF_METHOD = ("sampler", "timesteps", "evaluations_per_sample", "weights", "fingerprint")
SAMPLES = ("inception_score", "fid", "kid", "precision", "recall")
MATTERS = {
    "features": SAMPLES,
    "feature_metrics.inception_score_splits": ("inception_score",),
    "feature_metrics.kid_subsets": ("kid",),
    "feature_metrics.kid_subset_size": ("kid",),
    "feature_metrics.neighborhood": ("precision", "recall"),
    "num_samples": SAMPLES,
    "fid_reference": ("fid", "kid", "precision", "recall"),
    "quantiser": SAMPLES,
    "bound": ("bits_per_dim", "bound_nats"),
}
PROTOCOL = "protocol"  # the column that tells apart what was measured differently of one configuration
VERDICTS = ("PASS", "FAIL")  # any other is the reason why there is none


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
        return self.part == "value"

    def number(self, value: float) -> str:
        return f"{value:.{self.quantity.digits}f}"


@dataclass
class Line:
    """Runs that differ in nothing but the seed."""

    settings: dict[str, str]
    runs: list[Run]

    @property
    def name(self) -> str:
        """What tells it from the others; of a group, the chosen option says enough."""
        said = {
            key: value if key in cli.groups() else f"{key}={value}" for key, value in self.settings.items() if value
        }
        return " ".join(said.values()) or "unknown"

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.finished]

    def values(self, column: Column) -> list[float]:
        parts = (run.metrics.get(column.metric, {}) for run in self.finished)
        return [value[column.part] for value in parts if column.part in value]

    def mean(self, column: Column) -> float | None:
        values = self.values(column)
        return statistics.fmean(values) if values else None

    def shown(self, column: Column) -> str:
        """The mean ± the deviation over seeds; of one run, its own error (± in brackets)."""
        mean = self.mean(column)
        if mean is None:
            return ""
        return " ".join(filter(None, [column.number(mean), self.deviation(column) or self.error(column)]))

    def deviation(self, column: Column) -> str:
        values = self.values(column)
        return f"± {column.number(statistics.stdev(values))}" if len(values) > 1 else ""

    def error(self, column: Column) -> str:
        """Of the one run that has the metric."""
        with_it = [run.metrics[column.metric] for run in self.finished if column.metric in run.metrics]
        if len(with_it) != 1 or column.part != "value" or column.quantity.error not in with_it[0]:
            return ""
        return f"(± {column.number(with_it[0][column.quantity.error])})"

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
        done, all_ = len(self.finished), len(self.runs)
        return str(done) if done == all_ else f"{done} of {all_}"

    @property
    def note(self) -> str:
        """How the runs ended that have not finished, and what could not be read of the others."""
        said = [(run, ": ".join(filter(None, ["" if run.finished else run.status, run.why]))) for run in self.runs]
        by_text: dict[str, list[str]] = {}
        for run, why in said:
            if why:
                by_text.setdefault(why, []).append(run.seed or "?")
        several = len(self.runs) > 1
        return "; ".join(f"seed {', '.join(seeds)} {why}" if several else why for why, seeds in by_text.items())


@dataclass
class Table:
    """The lines, their columns, which numbers are the best, and what to know before quoting them."""

    settings: list[str]
    columns: list[Column]
    lines: list[Line]
    whole_time: bool  # minutes are those of a whole run as its sweep saw it, or else of the training steps
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


def of(runs: Sequence[Run]) -> Table:
    """One line for each configuration."""
    keys = varying(runs)
    lines = _grouped(runs, keys)
    if any(len({run.fingerprint for run in line.finished} - {""}) > 1 for line in lines):
        keys = [*keys, PROTOCOL]
        lines = _grouped(runs, keys)
    measured = {(name, part) for run in runs if run.finished for name, parts in run.metrics.items() for part in parts}
    columns = [
        Column(name, part, quantity)
        for name in quantities.known()
        if (quantity := quantities.of(name))
        for part in ("value", "rate", "distortion")
        if (name, part) in measured
    ]
    made = Table(keys, columns, lines, whole_time=all(run.seconds is not None for run in runs))
    differing = _differing_protocols(runs)
    void = [column for column in columns if any(_voids(part, column) for part in differing)]
    made.best = {
        (i, j)
        for j, column in enumerate(columns)
        if column.ranked and column not in void
        for i in _best([line.mean(column) for line in lines], column.quantity)
    }
    made.notes = list(_notes(made, differing, void))
    return made


def _grouped(runs: Sequence[Run], keys: Sequence[str]) -> list[Line]:
    """By these settings; a run that has measured nothing goes with the first of its configuration."""
    lines: dict[tuple[str, ...], Line] = {}
    for run in sorted(runs, key=lambda run: not run.fingerprint) if PROTOCOL in keys else runs:
        settings = {key: run.fingerprint if key == PROTOCOL else run.setting(key) for key in keys}
        same = (key for key in lines if key[:-1] == tuple(settings.values())[:-1])
        place = next(same, None) if PROTOCOL in keys and not run.fingerprint else None
        lines.setdefault(place or tuple(settings.values()), Line(settings, [])).runs.append(run)
    return list(lines.values())


def varying(runs: Sequence[Run]) -> list[str]:
    """The settings that tell the lines apart: in one sweep its overrides, elsewhere by configuration."""
    asked = list(dict.fromkeys(key for run in runs for key in run.overrides or {}))
    one_sweep = all(run.overrides is not None for run in runs) and len({run.folder.parent for run in runs}) == 1
    if one_sweep:
        candidates = [key for key in asked if not _under(key, BOOKKEEPING)]
        keys = [key for key in candidates if _varies(runs, key)]
        return keys or candidates[:1] or ["recipe"]
    groups = [key for key in dict.fromkeys(group for run in runs for group in run.choices) if key not in PRESETS]
    leaves = list(dict.fromkeys([*(key for run in runs for key in run.settings), *asked]))
    presets = [key for key in PRESETS if _varies(runs, key)]
    keys = list(presets)
    for key in (*groups, *leaves):
        if key in PRESETS or _under(key, BOOKKEEPING) or (_under(key, (*HARDWARE, *MEASURING)) and key not in asked):
            continue
        if not _varies(runs, key) or _explained(runs, key, presets) or _explained(runs, key, _own(key, groups)):
            continue
        if not any(_same(runs, key, other) for other in keys):
            keys.append(key)
    return keys or ["recipe"]


def differences(runs: Sequence[Run]) -> list[str]:
    """Every setting that is not the same in all configurations, bookkeeping aside."""
    read = [run for run in runs if run.config]
    groups = {group for run in read for group in run.choices}
    keys = dict.fromkeys(key for run in read for key in (*run.choices, *run.settings))
    return [
        key
        for key in keys
        if _varies(read, key)
        and not _under(key, (*BOOKKEEPING, *HARDWARE))
        and not (key.endswith("._target_") and _explained(read, key, _own(key, groups)))
    ]


def _differing_protocols(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The parts of the protocols that are not the same wherever something was measured, with their values."""
    protocols = [_comparable(run.protocol) for run in runs if run.finished and run.protocol]
    parts = dict.fromkeys(part for protocol in protocols for part in protocol)
    values = {part: list(dict.fromkeys(protocol.get(part, "null") for protocol in protocols)) for part in parts}
    return {part: found for part, found in values.items() if len(found) > 1 and part != "fingerprint"}


def _comparable(protocol: dict[str, str]) -> dict[str, str]:
    """The same, but for a bound at every t, which is one measure for every T."""
    full = "bound.evaluations" in protocol and protocol["bound.evaluations"] == protocol.get("timesteps")
    return {**protocol, "bound.evaluations": "every t"} if full else protocol


def _voids(part: str, column: Column) -> bool:
    """Whether this column's values, measured with different such parts, cannot be ranked."""
    metrics = next((metrics for name, metrics in MATTERS.items() if _under(part, [name])), None)
    return not _under(part, OF_METHOD) and (metrics is None or column.metric.startswith(metrics))


def _best(means: Sequence[float | None], quantity: Quantity) -> list[int]:
    known = [mean for mean in means if mean is not None]
    if len(known) < 2:
        return []
    target = quantity.best(known)
    return [i for i, mean in enumerate(means) if mean is not None and math.isclose(mean, target, rel_tol=1e-12)]


def _notes(made: Table, differing: dict[str, list[str]], void: Sequence[Column]) -> list[str]:
    notes = []
    lines, columns = made.lines, made.columns
    if made.best:
        notes.append("Bold: the best mean of its column.")
    if any(line.deviation(column) for line in lines for column in columns):
        notes.append("±: the sample deviation over seeds.")
    if any(line.error(column) for line in lines for column in columns):
        notes.append(
            "(±): one run, so the metric's own error: of IS the deviation over splits, of KID over subsets, of the "
            "bound the standard error over images. It says nothing of other seeds."
        )
    if any(0 < len(line.finished) < len(line.runs) for line in lines):
        notes.append("Means are over the runs that finished.")
    for part, values in differing.items():
        if _under(part, OF_METHOD) or any(_voids(part, column) for column in columns):
            notes.append(f"Protocols differ in {part}: {shown(' / '.join(values))}.")
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


# --- which settings tell runs apart ----------------------------------------------------------------------------------


def _varies(runs: Sequence[Run], key: str) -> bool:
    return len({run.setting(key) for run in runs}) > 1


def _explained(runs: Sequence[Run], key: str, others: Sequence[str]) -> bool:
    """Whether the values of `others`, which do vary, decide that of `key`."""
    others = [other for other in others if _varies(runs, other)]
    known = {tuple(run.setting(other) for other in others) for run in runs}
    return bool(others) and len(known) == len(
        {(*(run.setting(other) for other in others), run.setting(key)) for run in runs}
    )


def _own(key: str, groups: Collection[str]) -> list[str]:
    """The groups that a leaf is in."""
    return [part for part in key.split(".")[:-1] if part in groups]


def _same(runs: Sequence[Run], key: str, other: str) -> bool:
    """One setting that stands in two places: `schedule.T` is `timesteps.T`."""
    return key.rpartition(".")[2] == other.rpartition(".")[2] and all(
        run.setting(key) == run.setting(other) for run in runs
    )


def _under(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
