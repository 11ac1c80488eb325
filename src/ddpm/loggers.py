"""Where a run's numbers go: always metrics.csv in the run folder; W&B where the configuration asks for it."""

import csv
import functools
import io
import os
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

Row = dict[str, float | int | str]  # text: as an earlier start of the run wrote it


class MetricsCsv(Logger):
    """metrics.csv: a row per step, a column per metric, empty where a metric was not due; every row is flushed.

    A run that goes on from `step` keeps the rows up to there and writes the later ones anew.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._rows: list[Row] = []
        if step and self.path.exists():
            with self.path.open(newline="", errors="replace") as file:
                rows = [{column: text for column, text in row.items() if text} for row in csv.DictReader(file)]
            self._rows = [{**row, "step": int(row["step"])} for row in rows if row.get("step", "").isdigit()]
            self._rows = [row for row in self._rows if int(row["step"]) <= step]
            self._columns = list(dict.fromkeys(column for row in self._rows for column in row))
            self._rewrite()

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

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text.getvalue(), newline="")
        temporary.replace(self.path)


def wandb_logger(folder: Path, config: dict[str, Any], step: int = 0, **settings: Any) -> WandbLogger:
    """W&B into the run folder: online where a key is configured, offline where none is; WANDB_MODE wins.

    A run that goes on from `step` goes on in W&B where it is online and was. W&B cannot resume an offline run: that
    becomes a second one, which says what it continues.
    """
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    if "WANDB_MODE" not in os.environ:
        settings["mode"] = "online" if wandb.login(prompt=False, verify=False) else "offline"
    online = settings.get("mode", os.environ.get("WANDB_MODE")) == "online"
    earlier = sorted((folder / "wandb").glob("*run-*-*"), key=lambda path: path.name.rpartition("run-")[2])
    if step and earlier:
        identity = earlier[-1].name.rpartition("-")[2]
        if online and earlier[-1].name.startswith("run-"):
            settings |= {"id": identity, "resume": "allow"}
        else:
            config = {**config, "continues": identity, "continues_from_step": step}
            settings["notes"] = f"continues {identity} from step {step}"
    start = functools.partial(wandb.init, dir=folder, config=config)  # Lightning's own call earns a warning
    try:
        run = start(settings=wandb.Settings(console="off", init_timeout=30), **settings)
    except wandb.Error as error:
        print(f"W&B cannot be reached, so the run is logged offline: {str(error).splitlines()[0]}", file=sys.stderr)
        run = start(settings=wandb.Settings(console="off"), **{**settings, "mode": "offline"})
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run)


def how_to_look(logger: WandbLogger) -> list[str]:
    """What to type to see the run."""
    run = logger.experiment
    if not run.offline:
        return [f"W&B run: {run.url}"] if run.url else []
    folder = Path(run.dir).parent
    return [f"look at the run (offline): wandb leet {folder}", f"send it to W&B:            wandb sync {folder}"]
