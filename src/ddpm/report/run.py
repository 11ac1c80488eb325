"""A run as a report sees it: its settings, how it ended, what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse
from ddpm.config.roles import PRESETS
from ddpm.messages import printable
from ddpm.report import published
from ddpm.training.monitor import monitor_of

if TYPE_CHECKING:
    from ddpm.report.codecs import Codecs

NOISE = "evaluation.seed"  # what tells evaluations of one checkpoint by one protocol apart

Curve = tuple[list[float], list[float]]  # x and y, of equal length


@dataclass
class ReportedRun:
    """One run as its files describe it: its settings, how it ended, what was measured."""

    folder: Path
    status: str
    reason: str = ""
    overrides: dict[str, str] | None = None  # for a sweep's run only
    seconds: float | None = None  # for a sweep's run only: of all its starts together, evaluation included
    config: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, dict[str, float]] = field(default_factory=dict)  # finite numbers only
    protocol: dict[str, str] = field(default_factory=dict)  # leaves by their dotted names
    measured_at: float | None = None  # the optimizer step of the weights that were measured
    verdicts: dict[str, str] = field(default_factory=dict)  # by metric, against the published value
    history: dict[str, Curve] = field(default_factory=dict)  # the columns of metrics.csv, over steps
    terms: Curve = field(default_factory=lambda: ([], []))  # of the bound, over t
    rates: Curve = field(default_factory=lambda: ([], []))  # distortion over rate
    codecs: "Codecs | None" = None  # of the images of the bound
    problems: list[str] = field(default_factory=list)  # what could not be read, or should not be relied on

    @property
    def finished(self) -> bool:
        """Whether its numbers count: it has come to its end, or was measured on its way."""
        return self.status in ("finished", "measured")

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
    def stopped_early(self) -> str:
        """Why `stop.patience` ended the run, by its validations; "" if it did not."""
        try:
            monitor, patience = monitor_of(self.config), self.config["stop"]["patience"]
            for step, value in zip(*self.history.get(monitor.metric, ([], [])), strict=True):
                monitor.see(int(step), value)
            ended = monitor.at_end(patience) and monitor.step < self.config["max_steps"]
        except (RequestError, LookupError, TypeError, ValueError, AttributeError):
            return ""
        return printable(monitor.why(patience)) if ended else ""

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every leaf of the configuration, by its dotted name."""
        tree = {key: value for key, value in self.config.items() if key != "choices"}
        return {key: text(value) for key, value in published.flat(tree).items()}

    @property
    def seed(self) -> str:
        """The seed that tells the run from others of its line: in a sweep of evaluations, that of their noise."""
        said = self.overrides or {}
        return self.setting(NOISE if NOISE in said and "seed" not in said else "seed")

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

    @cached_property
    def measure(self) -> tuple[tuple[str, str], ...]:
        """The protocol but for the seed of its noise: numbers by the same measure can be averaged."""
        return tuple(sorted(part for part in self.protocol.items() if part[0] not in ("fingerprint", "seed")))

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
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        steps, rate = self.history.get("train/images_per_second", ([], []))
        spans = zip([0.0, *steps], steps, rate, strict=False)
        seconds = sum((end - begin) * batch / per_second for begin, end, per_second in spans if per_second > 0)
        return seconds or None


def overrides(said: Sequence[str]) -> dict[str, str]:
    """Overrides by key, with values as the configuration would show them."""
    found = {}
    for override in said:
        try:
            (parsed,) = parse([override])
            found[printable(parsed.key_or_group)] = text(parsed.value())
        except RequestError:
            key, _, value = override.partition("=")
            found[printable(key)] = printable(value)
    return found


def text(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return printable(f"[{','.join(map(text, value))}]")
    return printable(str(value))
