"""Progress that a person can follow: a bar on a terminal, a line now and then where there is none."""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0
Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """For a person: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Bar:
    """One task of `total` steps. `advance` moves it; `note` is what stands behind the count ("loss 0.05")."""

    def __init__(self, title: str, total: int, *, enabled: bool = True, start: int = 0) -> None:
        self.title, self.total, self.done, self.note, self.enabled = title, total, start, "", enabled
        self._start, self._begun, self._printed = start, time.monotonic(), time.monotonic()
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (enabled and self._console.is_terminal),
        )
        self._task = self._progress.add_task(title, total=total, completed=start, note="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self.done += steps
        self.note = self.note if note is None else note
        self._progress.update(self._task, completed=self.done, note=self.note)
        now = time.monotonic()
        due = now - self._printed >= SECONDS_BETWEEN_LINES or self.done == self.total
        if self.enabled and not self._console.is_terminal and due:
            self._printed = now
            left = (now - self._begun) / max(self.done - self._start, 1) * (self.total - self.done)
            line = f"{self.title} {self.done}/{self.total}  {self.note}  {duration(left)} left"
            print(line, file=self._console.file, flush=True)

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, one step each."""
        for item in items:
            yield item
            self.advance()
