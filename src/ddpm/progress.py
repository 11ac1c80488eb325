"""Progress of a long computation on stderr: a bar on a terminal, elsewhere a line every ten seconds."""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0
Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """A duration as a person says it: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Bar:
    """The progress of one task of `total` steps, as a context manager; `start` of them were done earlier.

    `note` is shown behind the count ("loss 0.05"). Where `enabled` is false, steps are counted and nothing is shown.
    """

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
        """Count so many more steps, and show a new note if there is one."""
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
        """Yield the items, and count a step after each."""
        for item in items:
            yield item
            self.advance()
