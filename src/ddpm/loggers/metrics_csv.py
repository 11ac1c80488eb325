"""metrics.csv, the logger that every run has."""

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ddpm.files import name_again, write_whole
from ddpm.loggers.logger import LoggedRun, RunLogger
from ddpm.messages import warn

Row = dict[str, float | int | str]  # text: as an earlier start of the run wrote it


class MetricsCsv(RunLogger):
    """Writes metrics.csv: a row per step, a column per metric, empty where a metric was not due; every row is flushed.

    A run that goes on from `step` keeps the rows up to there and writes the later ones anew.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._rows: list[Row] = []
        if step and self.path.exists():
            self._rows = [row for row in self._read() if int(row["step"]) <= step]
            self._columns = list(dict.fromkeys(column for row in self._rows for column in row))
            self._rewrite()

    @classmethod
    def of(cls, run: LoggedRun) -> "MetricsCsv":
        return cls(run.folder, run.step)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row: Row = {"step": step or 0, **metrics}
        new = [column for column in row if column not in self._columns]
        if (self._rows and self._rows[-1]["step"] == row["step"]) or new:
            if self._rows and self._rows[-1]["step"] == row["step"]:
                self._rows[-1] |= row
            else:
                self._rows.append(row)
            self._columns += new
            self._rewrite()
        else:
            self._rows.append(row)
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)

    def _read(self) -> list[Row]:
        """The file's rows. One with damaged lines, which are told of and left out, keeps another name as it was."""
        rows: list[Row] = []
        with self.path.open(newline="", errors="replace") as file:
            lines = list(file)
        reader = csv.reader(line for line in lines if line.endswith("\n"))  # else its last number is cut off
        with contextlib.suppress(csv.Error):
            heading = next(reader, [])
            for line in reader:
                row = {column: text for column, text in zip(heading, line, strict=False) if text}
                if len(line) == len(heading) and (step := row.get("step", "")).isdecimal():
                    rows.append({**row, "step": int(step)})
        if left_out := len(lines) - 1 - len(rows) if lines else 0:
            kept = self.path.with_name(f"{self.path.name}.damaged")
            name_again(self.path, kept)
            warn(f"{self.path} is damaged: {left_out} of its lines are left out; as it was, it is {kept}")
        return rows

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        write_whole(self.path, text.getvalue())
