"""A reverse process is measured here: samples by their metrics, the bound, and real images beside them."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddpm.data.conditioning import Conditioning, OfSamples, Unconditional
from ddpm.data.dataset import SPLITS, Dataset
from ddpm.diffusion.guidance import Guidance, Unguided
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.diffusion.wide import with_float64
from ddpm.evaluation import checks, codecs, forecast, references
from ddpm.evaluation.bound import BoundOverSplit, draws_of_x_1
from ddpm.evaluation.chunks import Chunk, Chunks
from ddpm.evaluation.measure import MetricsOfImages
from ddpm.evaluation.protocol import digest_of_weights, protocol_of, stated
from ddpm.evaluation.results import Results
from ddpm.evaluation.samples import SAMPLES, Samples
from ddpm.evaluation.settings import EvaluationSettings
from ddpm.figures import drawing
from ddpm.figures.display import display_of
from ddpm.hardware import autocast, prepare_for_evaluation
from ddpm.launch import Rank
from ddpm.metrics.codecs import lines
from ddpm.metrics.features import FeatureExtractor
from ddpm.metrics.metric import Reference, SampleMetric
from ddpm.metrics.statistics import InOrder
from ddpm.progress import Bar
from ddpm.runs import folders

COLUMNS = 10  # and rows of the sample grid


class Evaluation:
    """An evaluation of any reverse process for one dataset; building it fails where the request is wrong.

    Args:
        metrics: of samples, all that there are, by name; `settings` says which of them are measured.
        conditioning: what the network is told of each example, by default nothing.
        guidance: of samples, by default none; the bound is that of the process itself.

    Raises:
        ValueError: what is asked for cannot be measured.
    """

    def __init__(
        self,
        images: Dataset,
        sampler: Sampler,
        extractor: FeatureExtractor,
        metrics: Mapping[str, SampleMetric],
        settings: EvaluationSettings,
        conditioning: Conditioning | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.conditioning, self.guidance = conditioning or Unconditional(), guidance or Unguided()
        checks.check_names(images, metrics, settings)
        images.prepare()
        checks.check(images, extractor, metrics, settings, self.conditioning)
        self.conditioning.check(images)
        for part in (sampler, self.conditioning, self.guidance):
            stated(part)  # else a protocol that cannot be written would be found out after a training
        self.images, self.sampler, self.extractor, self.settings = images, sampler, extractor, settings
        self.metrics = metrics
        self.of_samples = {name: metric for name, metric in metrics.items() if name in settings.metrics}

    def run(self, p: ReverseProcess, rank: Rank, about: dict[str, Any], folder: Path | None = None) -> Results:
        """Measure a reverse process, and the real images beside it.

        Finished chunks are kept under `folder` until the results are written: an evaluation of the same weights by the
        same protocol goes on from them.

        Args:
            p: in evaluation mode; its network is laid out for measuring, in place.
            about: what results.json says besides: the checkpoint and the configuration.
        """
        p = p.to(rank.device)
        protocol, weights = self.protocol(p), digest_of_weights(p)
        prepare_for_evaluation(p.network, self.settings.precision == "bf16-mixed")
        kept = folder / folders.UNFINISHED / f"{protocol['fingerprint']}-{weights[:10]}" if folder else None
        chunks = Chunks(self.settings.chunk, self.settings.seed, rank, kept)
        precision = functools.partial(autocast, rank.device, self.settings.precision)
        forecast.announce(self._work(p.q), p, self.images.shape, chunks, precision, self._told())
        guided = self.guidance(p).to(rank.device)
        results = Results(
            {}, {}, protocol, {**about, "weights_sha256": weights}, of_samples=list(self.of_samples.values())
        )
        if self.of_samples:
            samples = Samples(guided, self.sampler, self.images.shape, chunks, precision, self._told())
            self._measure_samples(samples, results)
        with precision():
            draw, told = chunks.generator(SAMPLES, 0), self._told()
            display = display_of(self.images)
            shown = display.of_process(guided, self.sampler, draw, self.images, lambda count: told(range(count)))
        results.pictures |= shown
        if self.images.kind.bound in self.settings.metrics:
            self._measure_bound(p, chunks, precision, results)
        return results

    def measure_samples(self, p: ReverseProcess, rank: Rank, between: Callable[[], None]) -> dict[str, Any]:
        """The metrics of samples alone, of a process that goes on being trained: nothing is kept, shown or laid out.

        Args:
            p: in evaluation mode, on the rank's device.
            between: called before each chunk, as often on every process; it may end the run by raising.
        """
        chunks = Chunks(self.settings.chunk, self.settings.seed, rank)
        precision = functools.partial(autocast, rank.device, self.settings.precision)
        guided = self.guidance(p).to(rank.device)
        samples = Samples(guided, self.sampler, self.images.shape, chunks, precision, self._told())
        references, n = self._references(self.extractor.to(rank.device), chunks), self.settings.num_samples

        wanted = list(self.of_samples.values())
        return self._measure("", n, wanted, references, samples.of, samples.labels, chunks, between)

    def protocol(self, p: ReverseProcess) -> dict[str, Any]:
        """Everything that the numbers depend on but the weights."""
        made_by = (self.sampler, self.extractor, self.metrics, self.settings, self.conditioning, self.guidance)
        return protocol_of(p, self.images, *made_by)

    def _told(self) -> OfSamples:
        """What samples are told: as the images against which they are held."""
        return OfSamples(self.conditioning, self.images, self.settings.reference_splits[0], self.settings.seed)

    def _work(self, q: ForwardProcess) -> list[forecast.Part]:
        """The parts of the evaluation, with the number of evaluations of the network that each takes."""
        settings, work = self.settings, []
        if self.of_samples:
            steps, n = self.sampler.num_evaluations(q) * self.guidance.evaluations, settings.num_samples
            said = f"{n:,} samples x {steps} steps = {n * steps:,} evaluations of the network"
            work.append(forecast.Part(said, "samples", n, steps))
        if self.images.kind.bound in settings.metrics:
            whole = q.T - 1 + draws_of_x_1(q.T)
            each, kept_as = (settings.evaluations, "estimate") if settings.evaluations else (whole, "bound")
            for split in settings.bound_splits:
                n = settings.bound_count(self.images, split)
                said = f"the bound of {n:,} {split} images x {each} = {n * each:,} evaluations of the network"
                work.append(forecast.Part(said, f"{kept_as} {split}", n, each))
        return work

    # --- samples -----------------------------------------------------------------------------------------------------

    def _measure_samples(self, samples: Samples, results: Results) -> None:
        chunks, n = samples.chunks, self.settings.num_samples
        references = self._references(self.extractor.to(chunks.rank.device), chunks)
        shown = InOrder().to(with_float64(chunks.rank.device))  # the first samples, whichever process draws them

        def sampled(chunk: Chunk) -> Tensor:
            images = samples.of(chunk)
            if int(chunk.indices[0]) < COLUMNS**2:
                shown.update(images.flatten(1), chunk.indices)
            return images

        wanted = list(self.of_samples.values())
        results.metrics |= self._measure("samples", n, wanted, references, sampled, samples.labels, chunks)
        results.samples = lambda: samples.finished(n)
        first = shown.compute()[: COLUMNS**2].to("cpu", torch.uint8).unflatten(1, self.images.shape)
        if chunks.rank.index == 0:
            results.pictures["samples"] = drawing.grid(first, COLUMNS)
            results.pictures["reverse"] = drawing.strip(samples.chain())
        self._measure_real_images(references, chunks, results)

    def _measure_real_images(self, references: Sequence[Reference], chunks: Chunks, results: Results) -> None:
        """What real images score: those that train beside those that test, and the other way round.

        Metrics that need more images than the split has are left out.
        """
        for split in SPLITS:
            others, examples = [known for known in references if known.split != split], self.images.split(split)
            shown = min(self.settings.num_samples, len(examples))
            wanted = [
                metric
                for metric in self.of_samples.values()
                if (others if metric.needs_reference else split == "train") and shown >= metric.fewest
            ]
            if wanted:
                read = lambda c, e=examples: chunks.examples(e, c)[: len(c.indices)]  # noqa: E731
                labels = lambda c, e=examples: None if e.labels is None else e.labels[c.indices]  # noqa: E731
                results.real |= self._measure(f"real {split} images", shown, wanted, others, read, labels, chunks)

    def _references(self, extractor: FeatureExtractor, chunks: Chunks) -> list[Reference]:
        """The real images that the wanted metrics hold samples against."""
        made: list[Reference] = []
        wanted = self.of_samples.values()
        for split in self.settings.reference_splits if any(m.needs_reference for m in wanted) else []:
            examples = self.images.split(split)
            depends_on: dict[str, str | int] = {
                "data": self.images.state,
                "split": split,
                "chunk": chunks.size,
                "features": json.dumps(extractor.protocol, sort_keys=True),
            }
            folder = folders.ROOT / "statistics"
            statistics = references.statistics(examples, extractor, chunks, depends_on, folder)
            pool = labels = None
            if any(metric.needs_pool for metric in wanted):
                n = min(len(examples), self.settings.num_samples)
                pool = references.pool(examples, n, extractor, chunks)
                labels = None if examples.labels is None else examples.labels[:n]
            suffix = f"_{split}" if made else ""
            made.append(Reference(split, statistics, pool, suffix, labels))
        return made

    def _measure(
        self,
        title: str,
        n: int,
        wanted: Sequence[SampleMetric],
        references: Sequence[Reference],
        images_of: Callable[[Chunk], UInt8[Tensor, "k c h w"]],
        labels_of: Callable[[Chunk], Tensor | None],
        chunks: Chunks,
        between: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """The wanted metrics of n images from one pass of the extractor; without a title, no progress is shown."""
        metrics = MetricsOfImages(wanted, references, self.extractor.width, chunks.rank.device)
        mine = chunks.of(n)
        shown = bool(title) and chunks.rank.index == 0
        with Bar(title, sum(len(chunk.indices) for chunk in mine), enabled=shown) as bar:
            for chunk in [*mine, *[None] * (chunks.rounds(n) - len(mine))]:
                between()
                if chunk is None:  # others have one more, and all must have come as far before `compute`
                    continue
                seen = self.extractor(images_of(chunk))
                metrics.update(seen._replace(labels=labels_of(chunk)), chunk.indices)
                bar.advance(len(chunk.indices))
        return metrics.compute(n)

    # --- the bound ---------------------------------------------------------------------------------------------------

    def _measure_bound(
        self,
        p: ReverseProcess,
        chunks: Chunks,
        precision: Callable[[], AbstractContextManager[None]],
        results: Results,
    ) -> None:
        settings, kind, dims = self.settings, self.images.kind, math.prod(self.images.shape)
        name, scale, splits = kind.bound, kind.scale(dims), settings.bound_splits
        for split in splits:
            bound = BoundOverSplit(
                p,
                self.images.split(split),
                settings.bound_count(self.images, split),
                title=split,
                conditioning=self.conditioning,
                chunks=chunks,
                evaluations=settings.evaluations,
                precision=precision,
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
        if not kind.density:
            n = settings.bound_count(self.images, splits[0])
            results.codecs = codecs.measure(self.images, splits[0], n, chunks)
            if chunks.rank.index == 0:
                rate, rmse = (torch.tensor(results.curves[curve]) for curve in ("rate_bits_per_dim", "rmse"))
                caption = f"Rate and distortion of {n:,} {splits[0]} images"
                if settings.evaluations:
                    caption += f", outlined by a tenth of {settings.evaluations} evaluations of the network for each"
                plot = drawing.rates(rate, rmse, caption, lines(results.codecs.get("lossy", {})))
                results.pictures["rate_distortion"] = drawing.drawn(plot)
