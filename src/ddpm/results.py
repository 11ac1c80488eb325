"""What an evaluation leaves behind: results.json, the curves, the picture, the table, and the numbers in W&B."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from lightning.pytorch.loggers import Logger, WandbLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ddpm import figures

COLUMNS = 10  # of the sample grid
FEW = 2048  # fewer images than Inception has features: FID is then mostly bias


@dataclass
class Results:
    """The numbers of a model and of the real images beside it, with the protocol behind both."""

    metrics: dict[str, dict[str, Any]]
    real: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    about: dict[str, Any]  # ckpt, config
    curves: dict[str, list[float]]  # of the bound, over t
    samples: UInt8[Tensor, "n c h w"] | None
    chain: list[UInt8[Tensor, "k c h w"]]  # a few samples from x_T to x_0

    def publish(self, folder: Path, loggers: Sequence[Logger], step: int) -> None:
        """To the files, the loggers and the terminal."""
        self.write(folder)
        self.log(loggers, step)
        self.print()

    def write(self, folder: Path) -> None:
        """results.json, samples.png, reverse.png and bound.csv, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.samples is not None:
            figures.save(figures.grid(self.samples, COLUMNS), folder / "samples.png")
        if self.chain:
            figures.save(figures.strip(self.chain), folder / "reverse.png")
        if self.curves:
            with (folder / "bound.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(self.curves)
                writer.writerows(zip(*self.curves.values(), strict=True))
        content = {"metrics": self.metrics, "real": self.real, "protocol": self.protocol, **self.about}
        _write_whole(folder / "results.json", json.dumps(content, indent=2, default=str))

    def log(self, loggers: Sequence[Logger], step: int) -> None:
        """The same numbers, and the picture, to a run's loggers."""
        scalars = {
            f"evaluation/{name}" + ("" if part == "value" else f"_{part}"): value
            for name, parts in self.metrics.items()
            for part, value in parts.items()
            if isinstance(value, float)
        }
        for logger in loggers:
            logger.log_metrics(scalars, step)
            if isinstance(logger, WandbLogger) and self.samples is not None:
                logger.log_image("evaluation/samples", [figures.grid(self.samples, COLUMNS)], step)

    def print(self) -> None:
        """The table, and what to know before quoting it."""
        score, fid, bits = (self.metrics.get(name) for name in ("inception_score", "fid", "bits_per_dim"))
        titles = ["", *(["IS"] * bool(score)), *(["FID"] * bool(fid)), *(["bits/dim"] * bool(bits)), "images"]
        table = Table(*titles)
        table.add_row("model", *self._row(self.metrics))
        if self.real:
            table.add_row("real (train)", *self._row(self.real))
        console = Console()
        console.print(table)
        for note in self.notes():
            console.print(note, style="dim", highlight=False)

    def notes(self) -> list[str]:
        """What the numbers rest on."""
        notes = []
        if fid := self.metrics.get("fid"):
            notes.append(
                f"FID: {fid['n']:,} samples against {fid['reference_n']:,} images of the {fid['reference']} split"
                + (f"; fewer than {FEW:,}, so biased upwards: compare at equal counts" if fid["n"] < FEW else "")
            )
        if score := self.metrics.get("inception_score"):
            notes.append(f"IS: mean ± deviation over {score['splits']} splits of {score['n']:,} images, in both rows")
        if self.metrics.keys() & {"fid", "inception_score"}:
            features, sampler = self.protocol["features"]["extractor"], self.protocol["sampler"]
            own = ", which compares with itself only" if features == "digits" else ""
            steps = f"{self.protocol['evaluations_per_sample']} of {self.protocol['bound']['timesteps']} steps"
            eta = f", eta {sampler['eta']}" if "eta" in sampler else ""
            notes.append(f"features: {features}{own}; sampler: {sampler['name']}{eta}, {steps}")
        if bits := self.metrics.get("bits_per_dim"):
            bound = self.protocol["bound"]
            notes.append(
                f"bits/dim: bound over all {bound['timesteps']} timesteps, {bits['n']:,} images of the {bits['split']} "
                f"split, ± standard error = rate {bits['rate']:.4f} (of which the prior L_T {bits['prior']:.6f}) "
                f"+ distortion {bits['distortion']:.4f}"
            )
            if self.protocol["data"].startswith("digits"):
                notes.append("the digits use 17 of 256 gray levels: their bits/dim compares with itself only")
        notes.append(f"protocol {self.protocol['fingerprint']}")
        return notes

    def _row(self, metrics: dict[str, dict[str, Any]]) -> list[str]:
        cells = []
        for name, digits, spread in (("inception_score", 3, "std"), ("fid", 3, None), ("bits_per_dim", 4, "stderr")):
            if name in self.metrics:
                found = metrics.get(name)
                error = f" ± {found[spread]:.{digits}f}" if found and spread else ""
                cells.append(f"{found['value']:.{digits}f}{error}" if found else "")
        counts = {parts["n"] for name, parts in metrics.items() if name != "bits_per_dim"}
        return [*cells, ", ".join(f"{count:,}" for count in counts)]


def _write_whole(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never half."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
