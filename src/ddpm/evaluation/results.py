"""What an evaluation leaves behind: results.json, curves, pictures, the table, and what the loggers show."""

import csv
import io
import itertools
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ddpm.data.kind import IMAGES
from ddpm.evaluation import codecs
from ddpm.figures import drawing
from ddpm.files import whole_file, whole_folder, write_whole
from ddpm.loggers.by_t import means_by_t
from ddpm.loggers.loggers import log_by_t, log_picture
from ddpm.metrics import registry
from ddpm.metrics.metric import SampleMetric
from ddpm.runs import folders

MAX_BYTES = 1 << 25  # bytes of a results.json that is read
ABREAST = 5  # metrics side by side; more go below each other


@dataclass
class Results:
    """The numbers of a model and of the real images beside it, with the protocol behind both."""

    metrics: dict[str, dict[str, Any]]
    real: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    about: dict[str, Any]  # ckpt, its step, config
    curves: dict[str, list[float]] = field(default_factory=dict)  # of the bound, over t
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    samples: Callable[[], Iterator[Tensor]] | None = None  # uint8, in order, where they are kept on disk
    codecs: dict[str, Any] = field(default_factory=dict)  # what picture codecs need for the images of the bound
    published: list[dict[str, Any]] = field(default_factory=list)  # beside the experiment's `expected`
    of_samples: Sequence[SampleMetric] = ()  # the metrics of samples that were measured, which have notes of their own

    def publish(self, folder: Path, loggers: Sequence[Logger], step: int, keep: str | None = None) -> None:
        """Write the results to files, loggers and the terminal, and delete what was kept of unfinished work."""
        if keep and self.samples is not None:
            KEEPERS[keep](folder, self.samples(), self.protocol["num_samples"])
        self.write(folder)
        shutil.rmtree(folder / folders.UNFINISHED, ignore_errors=True)
        self.log(loggers, step)
        self.print()

    def write(self, folder: Path) -> None:
        """results.json, the pictures, bound.csv and rate_distortion.csv, into `folder`.

        Metrics of the same weights by the same protocol that an earlier evaluation left there stay.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.pictures.items():
            drawing.save(picture, folder / f"{name}.png")
        if self.curves:
            T = len(self.curves["t"])
            _write_csv(folder / "bound.csv", {key: self.curves[key] for key in ("t", "term", "term_stderr")})
            reverse_step = {"reverse_step": [T + 1 - t for t in self.curves["t"]]}  # as in Table 4
            distortion = {key: self.curves[key] for key in ("t", "rate_bits_per_dim", "rmse")}
            _write_csv(folder / "rate_distortion.csv", reverse_step | distortion)
        before = _earlier(folder / "results.json", self.protocol, self.about)
        content = {
            "metrics": {**before.get("metrics", {}), **self.metrics},
            "real": {**before.get("real", {}), **self.real},
            "codecs": self.codecs or before.get("codecs", {}),
            "published": [
                *(entry for entry in before.get("published", []) if str(entry.get("metric")) not in self.metrics),
                *self.published,
            ],
            "protocol": self.protocol,
            **self.about,
        }
        write_whole(folder / "results.json", json.dumps(content, indent=2, default=str), shared=True)

    def log(self, loggers: Sequence[Logger], step: int) -> None:
        """The same numbers, the bound's terms and the pictures, to a run's loggers."""
        scalars = {
            f"evaluation/{name}" + ("" if part == "value" else f"_{part}"): value
            for name, parts in self.metrics.items()
            for part, value in parts.items()
            if isinstance(value, float)
        }
        for logger in loggers:
            logger.log_metrics(scalars, step)
        for name, picture in self.pictures.items():
            log_picture(loggers, f"evaluation/{name}", picture, step)
        if self.curves:
            t, T = self.curves["t"], len(self.curves["t"])
            log_by_t(loggers, "evaluation/terms_by_t", means_by_t(t, self.curves["term"], T), T, step)

    def print(self) -> None:
        """The table, and what to know before quoting it."""
        shown = [name for name in self.metrics if registry.of(name).in_tables]
        lines: list[list[str]] = [["", *map(_title, shown)], ["model", *(_cell(name, self.metrics) for name in shown)]]
        if self.real:
            lines.append(["real images", *(_cell(name, self.real) for name in shown)])
        for codec in self.codecs.get("lossless", {}).values():
            lines.append([codec["title"], *(f"{codec['value']:.4f}" if name == IMAGES.bound else "" for name in shown)])
        if len(shown) > ABREAST:
            lines = [list(line) for line in zip(*lines, strict=True)]
        table = Table(*lines[0])
        for line in lines[1:]:
            table.add_row(*line)
        console = Console()
        console.print(table)
        for note in self.notes():
            console.print(note, style="dim", highlight=False, markup=False)
        for entry in self.published:
            console.print(_verdict(entry), highlight=False, markup=False)

    def notes(self) -> list[str]:
        """What the numbers rest on."""
        notes: list[str] = []
        for metric in self.of_samples:
            notes += metric.notes(self.metrics, self.real)
        if self.of_samples:
            features, sampler = self.protocol["features"]["extractor"], self.protocol["sampler"]
            own = ", which compares with itself only" if features == "digits" else ""
            steps = f"{self.protocol['evaluations_per_sample']} of {self.protocol['timesteps']} steps"
            eta = f", eta {sampler['eta']}" if "eta" in sampler else ""
            notes.append(f"features: {features}{own}; sampler: {sampler['name']}{eta}, {steps}")
            notes += [
                f"{part} of samples: {', '.join(f'{key} {value}' for key, value in self.protocol[part].items())}"
                for part in ("condition", "guidance")
                if part in self.protocol
            ]
        notes += [
            note for name in ("bits_per_dim", "bound_nats") if name in self.metrics for note in self._of_bound(name)
        ]
        notes += codecs.notes(self.codecs)
        notes.append(f"protocol {self.protocol['fingerprint']}")
        return notes

    def _of_bound(self, name: str) -> list[str]:
        bound, title, T = self.metrics[name], _title(name), self.protocol["timesteps"]
        how = f"bound over all {T} timesteps"
        if "evaluations" in bound:
            own = f"± {bound['stderr_of_estimate']:.4f} of its own, within the error shown"
            how = f"unbiased estimate of the bound from {bound['evaluations']} evaluations per image ({own})"
        notes = [
            f"{title}: {how}, {bound['n']:,} images of the {bound['split']} split, ± standard error = "
            f"rate {bound['rate']:.4f} (of which the prior L_T {bound['prior']:.6f}) "
            f"+ distortion {bound['distortion']:.4f}"
        ]
        if gap := _cell(f"{name}_gap", self.metrics):
            notes.append(f"test less train: {gap} {title}")
        if name == "bits_per_dim" and self.protocol["data"].startswith("digits"):
            notes.append("the digits use 17 of 256 gray levels: their bits/dim compares with itself only")
        return notes


def _title(name: str) -> str:
    return registry.of(name).title


def _cell(name: str, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    quantity, found = registry.of(name), metrics.get(name)
    if not found:
        return ""
    error = found[quantity.error] if quantity.error else math.nan
    spread = f" ± {error:.{quantity.digits}f}" if math.isfinite(error) else ""  # the bound of one image has none
    return f"{found['value']:.{quantity.digits}f}{spread}"


def _verdict(line: Mapping[str, Any]) -> str:
    title = _title(line["metric"])
    published = f"{title} published: {line['published']} ({line['source']})"
    if line["verdict"] not in ("PASS", "FAIL"):
        return f"{published}; not held against it: {line['verdict']}"
    return f"{published}, measured {line['measured']:.4g}, tolerance {line['tolerance']}: {line['verdict']}"


def has_measured(ckpt: Path, step: int, folder: Path, metrics: Sequence[str]) -> bool:
    """Whether the results.json of a run's folder is of this checkpoint of the run, and has these metrics."""
    content = read(folder / "results.json")
    try:
        if (Path(content["ckpt"]).name, content["step"]) != (ckpt.name, step):
            return False
        found = {registry.base_of(str(name)) for name in content["metrics"]}
    except (KeyError, TypeError):
        return False
    of_samples = registry.metrics()
    return all(found & {*(of_samples[name].quantities if name in of_samples else registry.bound())} for name in metrics)


def _earlier(path: Path, protocol: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """What another evaluation of the same weights by the same protocol has left, as far as it is of the right kind."""
    content = read(path)
    try:
        same = content["protocol"]["fingerprint"] == protocol["fingerprint"]
        if not same or content["weights_sha256"] != about["weights_sha256"]:
            return {}
        kept = {part: content[part] for part in ("metrics", "real", "codecs") if isinstance(content.get(part), dict)}
        return kept | {"published": [entry for entry in content.get("published", ()) if isinstance(entry, dict)]}
    except (KeyError, TypeError, AttributeError):
        return {}


def read(path: Path) -> Any:
    """What a results.json holds, which may be anything; an empty dictionary where it cannot be read."""
    try:
        return json.loads(path.read_text()) if path.stat().st_size <= MAX_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}


# --- samples ---------------------------------------------------------------------------------------------------------


def _keep_images(folder: Path, batches: Iterator[Tensor], n: int) -> None:
    """images/0000.png, ..."""
    digits = len(str(n - 1))
    with whole_folder(folder / "images") as whole:
        for index, image in enumerate(image for batch in batches for image in batch.permute(0, 2, 3, 1).numpy()):
            picture = image[..., 0] if image.shape[-1] == 1 else image
            Image.fromarray(picture).save(whole / f"{index:0{digits}d}.png")


def _keep_npz(folder: Path, batches: Iterator[Tensor], n: int) -> None:
    """samples.npz with `arr_0`, uint8 [n, height, width, channels], as the ADM evaluator reads."""
    first = next(batches)
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, *first.permute(0, 2, 3, 1).shape[1:])}
    with (
        whole_file(folder / "samples.npz") as whole,
        zipfile.ZipFile(whole, "w") as file,
        file.open("arr_0.npy", "w", force_zip64=True) as array,
    ):
        np.lib.format.write_array_header_1_0(array, header)
        for batch in itertools.chain([first], batches):
            array.write(batch.permute(0, 2, 3, 1).contiguous().numpy().tobytes())


KEEPERS: dict[str, Callable[[Path, Iterator[Tensor], int], None]] = {"images": _keep_images, "npz": _keep_npz}


def _write_csv(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_whole(path, text.getvalue(), shared=True)
