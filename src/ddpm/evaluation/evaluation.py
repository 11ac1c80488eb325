"""What is measured of a reverse process, in which order, and the protocol that every number carries."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.dataset import SPLITS, Dataset, Split
from ddpm.data.kind import KINDS
from ddpm.data.pixels import to_uint8, unit
from ddpm.diffusion import budget
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation import references
from ddpm.evaluation.bound import BoundOverSplit
from ddpm.evaluation.chunks import Chunk, Chunks
from ddpm.evaluation.measure import MetricsOfImages
from ddpm.evaluation.results import Results
from ddpm.figures import drawing
from ddpm.figures.display import display_of
from ddpm.hardware import autocast, check_precision, prepare_for_evaluation
from ddpm.launch import Place
from ddpm.messages import say
from ddpm.metrics import registry
from ddpm.metrics.features import FeatureExtractor
from ddpm.metrics.metric import Reference, SampleMetric
from ddpm.progress import Bar, duration
from ddpm.runs import folders

SAMPLES = 1  # what a chunk's generator is for
COLUMNS = 10  # and rows of the sample grid
CHAINS, STATES = 6, 13  # in the picture of the reverse process
TRIAL = 32  # images that tell how long an evaluation of the network takes on a CPU

WhichSplit = Literal["train", "test", "both"]


@dataclass(frozen=True)
class Settings:
    """What is measured (names of metrics of samples, and of the bound), on how much, with which draws.

    The bound is that of `bound_images` of `bound_split` (None: all), from `evaluations` evaluations of the network per
    image (None: one at each t).
    """

    metrics: Sequence[str]
    num_samples: int
    fid_split: WhichSplit
    bound_split: WhichSplit
    bound_images: int | None
    evaluations: int | None
    decoder: str
    chunk: int
    precision: str
    seed: int
    weights: str = "exponential moving average"  # which of a run's two sets


class Evaluation:
    """What is measured of any reverse process for one dataset. Building it fails where the request is wrong."""

    def __init__(
        self,
        images: Dataset,
        sampler: Sampler,
        extractor: FeatureExtractor,
        metrics: Mapping[str, SampleMetric],
        settings: Settings,
    ) -> None:
        self.images, self.sampler, self.extractor, self.settings = images, sampler, extractor, settings
        self.metrics = metrics  # of samples, all that there are
        self.of_samples = {name: metric for name, metric in metrics.items() if name in settings.metrics}
        self._check_metrics()
        if self.of_samples:
            self._check_features()
        check_precision(settings.precision)
        if settings.evaluations is not None:
            budget.split_budget(settings.evaluations)

    def _check_metrics(self) -> None:
        wanted, images, kind = set(self.settings.metrics), self.images, self.images.kind
        known = (*self.metrics, *(each.bound for each in KINDS))
        if unknown := sorted(wanted - {*known}):
            raise ValueError(f"evaluation.metrics: {', '.join(unknown)} unknown; known are {', '.join(known)}")
        fitting = [*(self.metrics if kind.has_features else ()), kind.bound]
        if not wanted:
            raise ValueError(f"evaluation.metrics is empty: choose from {', '.join(fitting)}")
        if wrong := sorted(wanted - set(fitting)):
            there = " or ".join(other.name for other in KINDS if other is not kind)
            raise ValueError(
                f"evaluation.metrics: {', '.join(wrong)} measures {there}, and {images.name} is {kind.name}: "
                f"choose from {', '.join(fitting)}"
            )

    def _check_features(self) -> None:
        images, extractor, settings = self.images, self.extractor, self.settings
        extractor(torch.zeros(1, *images.shape, dtype=torch.uint8))  # does it take images of this shape?
        for name, metric in self.of_samples.items():
            if metric.needs_logits and not extractor.has_logits:
                raise ValueError(
                    f"features={extractor.name} has no classes, so no {name}: leave it out of evaluation.metrics"
                )
        for name, metric in self.of_samples.items():
            needs = f"{name} needs {metric.fewest} or more" + (f"; or {metric.remedy}" if metric.remedy else "")
            if settings.num_samples < metric.fewest:
                raise ValueError(f"evaluation.num_samples={settings.num_samples}: {needs}")
            for split in _splits(settings.fid_split, "train") if metric.needs_reference else []:
                if (n := len(images.split(split))) < metric.fewest:
                    raise ValueError(f"evaluation.fid_split={split} has {n} images: {needs}")

    # --- the whole ---------------------------------------------------------------------------------------------------

    def run(self, p: ReverseProcess, place: Place, about: dict[str, Any], folder: Path | None = None) -> Results:
        """Measure `p`, in evaluation mode, and the real images beside it; p's network is laid out for that, in place.

        Finished chunks are kept under `folder`, where an evaluation of the same weights by the same protocol finds
        them, until the results are published.
        """
        self.images.prepare()
        p = p.to(place.device)
        protocol, weights = self.protocol(p), _digest(p)
        prepare_for_evaluation(p.network, self.settings.precision == "bf16-mixed")
        kept = folder / folders.UNFINISHED / f"{protocol['fingerprint']}-{weights[:10]}" if folder else None
        chunks = Chunks(self.settings.chunk, self.settings.seed, place, kept)
        self.announce(p, chunks)
        results = Results(
            {}, {}, protocol, {**about, "weights_sha256": weights}, of_samples=list(self.of_samples.values())
        )
        if self.of_samples:
            self._measure_samples(p, chunks, results)
        with self._precision(place.device):
            shown = display_of(self.images).of_process(p, self.sampler, chunks.generator(SAMPLES, 0), self.images)
        results.pictures |= shown
        if self.images.kind.bound in self.settings.metrics:
            self._measure_bound(p, chunks, results)
        return results

    def announce(self, p: ReverseProcess, chunks: Chunks) -> None:
        """What will be done, and what it costs in evaluations of the network and in time."""
        settings, T, lines = self.settings, p.q.T, []
        work: list[tuple[str, int, int]] = []  # what a chunk's file is called, images, evaluations of each
        if self.of_samples:
            steps, n = self.sampler.num_evaluations(T), settings.num_samples
            work.append(("samples", n, steps))
            lines.append(f"{n:,} samples x {steps} steps = {n * steps:,} evaluations of the network")
        if self.images.kind.bound in settings.metrics:
            each = settings.evaluations or T
            for split in _splits(settings.bound_split, "test"):
                n = self._bound_count(split)
                work.append((f"{'estimate' if settings.evaluations else 'bound'} {split}", n, each))
                lines.append(f"the bound of {n:,} {split} images x {each} = {n * each:,} evaluations of the network")
        done = sum(len(c.indices) * each for what, n, each in work for c in chunks.of(n) if chunks.has(what, c.k))
        left = sum(len(c.indices) * each for _, n, each in work for c in chunks.of(n)) - done
        time_left = duration(left * self._seconds_per_evaluation(p, chunks))
        going_on = f"{done:,} of them are done already; " if done else ""
        say(*lines, f"{going_on}about {time_left} for {chunks.place.processes}")

    def _seconds_per_evaluation(self, p: ReverseProcess, chunks: Chunks) -> float:
        """Of the network, for one image; the first of two trials warms up."""
        device = chunks.place.device
        n = chunks.size if device.type == "cuda" else min(chunks.size, TRIAL)
        x_t, t = torch.zeros(n, *self.images.shape, device=device), torch.full((n,), p.q.T, device=device)
        for _ in range(2):
            begun = time.perf_counter()
            with torch.no_grad(), self._precision(device):
                p(x_t, t).x_0.sum().item()  # waits for the device
        return (time.perf_counter() - begun) / n

    def protocol(self, p: ReverseProcess) -> dict[str, Any]:
        """Everything that the numbers depend on but the weights; the number of processes is not among it."""
        settings = self.settings
        protocol = {
            "data": self.images.fingerprint,
            "weights": settings.weights,
            "sampler": {"name": type(self.sampler).__name__.lower(), **vars(self.sampler)},
            "timesteps": p.q.T,
            "evaluations_per_sample": self.sampler.num_evaluations(p.q.T),
            "num_samples": settings.num_samples,
            "features": self.extractor.protocol,
            "feature_metrics": self._protocol_of_metrics(),
            "quantiser": "round(clamp(127.5 x + 127.5, 0, 255))",
            "fid_reference": settings.fid_split,
            "bound": {
                "images": {split: self._bound_count(split) for split in _splits(settings.bound_split, "test")},
                "evaluations": settings.evaluations or p.q.T,
                "decoder": self.images.kind.decoder_name(settings.decoder),
                "x_0": "clipped to [-1, 1]",
            },
            "precision": settings.precision,
            "chunk": settings.chunk,
            "seed": settings.seed,
        }
        text = json.dumps(protocol, sort_keys=True, default=str)
        return {**protocol, "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:10]}

    def _protocol_of_metrics(self) -> dict[str, Any]:
        """The shipped metrics' parts always, as in every protocol so far; a further metric's only if it is measured."""
        shipped = registry.shipped()
        counted = [metric for name, metric in self.metrics.items() if name in shipped or name in self.of_samples]
        return {name: value for metric in counted for name, value in metric.protocol.items()}

    # --- samples -----------------------------------------------------------------------------------------------------

    def _measure_samples(self, p: ReverseProcess, chunks: Chunks, results: Results) -> None:
        extractor, n = self.extractor.to(chunks.place.device), self.settings.num_samples
        references = self._references(extractor, chunks)
        first: list[Tensor] = []

        def sampled(chunk: Chunk) -> Tensor:
            images = self.samples(p, chunk, chunks)
            if sum(map(len, first)) < COLUMNS**2:
                first.append(images.cpu())
            return images

        results.metrics |= self._measure("samples", n, list(self.of_samples.values()), references, sampled, chunks)
        results.samples = lambda: chunks.finished("samples", n)
        if chunks.place.rank == 0:
            results.pictures["samples"] = drawing.grid(torch.cat(first)[: COLUMNS**2], COLUMNS)
            results.pictures["reverse"] = drawing.strip(self.chain(p, chunks))
        # What real images score: those that train beside those that test, and the other way round.
        for split in SPLITS:
            others = [known for known in references if known.split != split]
            wanted = [
                metric
                for metric in self.of_samples.values()
                if (others if metric.needs_reference else split == "train")
            ]
            if wanted:
                examples = self.images.split(split)
                shown = min(n, len(examples))
                read = lambda c, e=examples: chunks.examples(e, c)[: len(c.indices)]  # noqa: E731
                results.real |= self._measure(f"real {split} images", shown, wanted, others, read, chunks)

    def samples(self, p: ReverseProcess, chunk: Chunk, chunks: Chunks) -> UInt8[Tensor, "n c h w"]:
        """One chunk of samples of p."""

        def generate() -> Tensor:
            draw, device = chunks.generator(SAMPLES, chunk.k), chunks.place.device
            x_T = torch.randn((chunks.size, *self.images.shape), generator=draw, device=device)
            with self._precision(device):
                *_, last = self.sampler(p, x_T, draw)
            return to_uint8(last.x_t)[: len(chunk.indices)]

        return chunks.once("samples", chunk.k, generate)

    def chain(self, p: ReverseProcess, chunks: Chunks) -> list[UInt8[Tensor, "n c h w"]]:
        """A few samples on their way from x_T to x_0, more states towards the end, where there is more to see."""
        draw, device = chunks.generator(SAMPLES, 0), chunks.place.device
        x_T = torch.randn((CHAINS, *self.images.shape), generator=draw, device=device)
        with self._precision(device):
            states = [x_T, *(state.x_t for state in self.sampler(p, x_T, draw))]
        shown = [round((1 - (1 - i / (STATES - 1)) ** 2) * (len(states) - 1)) for i in range(STATES)]
        return [to_uint8(states[k]).cpu() for k in dict.fromkeys(shown)]

    def _references(self, extractor: FeatureExtractor, chunks: Chunks) -> list[Reference]:
        """The real images that the wanted metrics hold samples against."""
        made: list[Reference] = []
        wanted = self.of_samples.values()
        for split in _splits(self.settings.fid_split, "train") if any(m.needs_reference for m in wanted) else []:
            examples = self.images.split(split)
            depends_on: dict[str, str | int] = {
                "data": self.images.state,
                "split": split,
                "chunk": chunks.size,
                "features": json.dumps(extractor.protocol, sort_keys=True),
            }
            folder = folders.ROOT / "statistics"
            statistics = references.statistics(examples, extractor, chunks, depends_on, folder)
            pool = None
            if any(metric.needs_pool for metric in wanted):
                pool = references.pool(examples, min(len(examples), self.settings.num_samples), extractor, chunks)
            suffix = f"_{split}" if made else ""
            made.append(Reference(split, statistics, pool, suffix))
        return made

    def _measure(
        self,
        title: str,
        n: int,
        wanted: Sequence[SampleMetric],
        references: Sequence[Reference],
        images_of: Callable[[Chunk], UInt8[Tensor, "k c h w"]],
        chunks: Chunks,
    ) -> dict[str, Any]:
        """The wanted metrics of n images from one pass of the extractor."""
        metrics = MetricsOfImages(wanted, references, self.extractor.width, chunks.place.device)
        mine = chunks.of(n)
        with Bar(title, sum(len(chunk.indices) for chunk in mine), enabled=chunks.place.rank == 0) as bar:
            for chunk in mine:
                metrics.update(self.extractor(images_of(chunk)), chunk.indices)
                bar.advance(len(chunk.indices))
        return metrics.compute(n)

    # --- the bound ---------------------------------------------------------------------------------------------------

    def _measure_bound(self, p: ReverseProcess, chunks: Chunks, results: Results) -> None:
        settings, kind, dims = self.settings, self.images.kind, math.prod(self.images.shape)
        name, scale = kind.bound, kind.scale(dims)
        splits = _splits(settings.bound_split, "test")
        for split in splits:
            bound = BoundOverSplit(
                p,
                self.images.split(split),
                self._bound_count(split),
                title=split,
                read=unit,
                chunks=chunks,
                evaluations=settings.evaluations,
                precision=lambda: self._precision(chunks.place.device),
            )
            metric, curves = bound.measure(scale, dims)
            key = name if split == splits[0] else f"{name}_{split}"
            results.metrics[key] = {**metric, "split": split}
            if split == splits[0]:
                results.curves = curves
        if len(splits) == 2:
            test, train = results.metrics[name], results.metrics[f"{name}_train"]
            gap = {"value": test["value"] - train["value"], "stderr": math.hypot(test["stderr"], train["stderr"])}
            results.metrics[f"{name}_gap"] = gap
        if results.curves and not kind.density and chunks.place.rank == 0:
            rate, rmse = (torch.tensor(results.curves[curve]) for curve in ("rate_bits_per_dim", "rmse"))
            caption = f"Rate and distortion of {self._bound_count(splits[0]):,} {splits[0]} images"
            if settings.evaluations:
                caption += f", outlined by a tenth of {settings.evaluations} evaluations of the network for each"
            results.pictures["rate_distortion"] = drawing.drawn(drawing.rates(rate, rmse, caption))

    def _bound_count(self, split: Split) -> int:
        whole = len(self.images.split(split))
        return min(whole, self.settings.bound_images or whole)

    def _precision(self, device: torch.device) -> AbstractContextManager[None]:
        return autocast(device, self.settings.precision)


def _splits(which: WhichSplit, first: Split) -> list[Split]:
    """Of both, `first` is the one that the paper quotes."""
    return sorted(SPLITS, key=lambda split: split != first) if which == "both" else [which]


def _digest(p: ReverseProcess) -> str:
    """SHA-256 of the weights."""
    digest = hashlib.sha256()
    for name, value in sorted(p.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
