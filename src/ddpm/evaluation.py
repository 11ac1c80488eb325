"""From a reverse process to numbers: generate -> features -> metrics, and the bound over a split.

Work is cut into chunks of indices. Chunk k draws from its own generator, keyed by (seed, what, k), and always has the
same size (a short last one is padded, the padding dropped), so that the number of processes changes no bit of a sample.
Every process takes each world_size-th chunk; sums and features then cross processes.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ddpm.data.dataset import Dataset, Examples, Split
from ddpm.data.pixels import to_uint8, to_unit
from ddpm.diffusion.likelihood import Bound, bits_per_dim, bound_terms, prior_term
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.features import FeatureExtractor
from ddpm.metrics import FeatureMoments, FeatureStatistics, FrechetDistance, InceptionScore, InOrder
from ddpm.progress import Bar
from ddpm.randomness import generator
from ddpm.results import Results

SAMPLES, BOUND = 1, 2  # what a chunk's generator is for: the second part of its key
METRICS = ("inception_score", "fid", "bits_per_dim")
SPLITS = 10  # of the Inception Score
SHOWN = 100  # samples in the picture
CHAINS, STATES = 6, 13  # in the picture of the reverse process


class Place(NamedTuple):
    """Where this process stands among those that share the work."""

    rank: int
    world_size: int
    device: torch.device


Batch = tuple[Int64[Tensor, " b"], UInt8[Tensor, "b c h w"]]  # indices and their images


@dataclass(frozen=True)
class Settings:
    """What is measured, on how much, with which draws."""

    metrics: Sequence[str]
    num_samples: int
    fid_split: Split
    bound_split: Split
    bound_images: int | None
    chunk: int
    precision: str
    decoder: str
    seed: int


class Evaluation:
    """What is measured of any reverse process for one dataset. Building it fails where the request is wrong."""

    def __init__(self, images: Dataset, sampler: Sampler, extractor: FeatureExtractor, settings: Settings) -> None:
        if unknown := set(settings.metrics) - set(METRICS):
            raise ValueError(
                f"evaluation.metrics: {', '.join(sorted(unknown))} unknown; known are {', '.join(METRICS)}"
            )
        if not settings.metrics:
            raise ValueError(f"evaluation.metrics is empty: choose from {', '.join(METRICS)}")
        if settings.precision not in ("32-true", "bf16-mixed"):
            raise ValueError(f"evaluation.precision={settings.precision}: use 32-true or bf16-mixed")
        if not images.discrete:
            raise ValueError(f"IS, FID and bits/dim are measures of images, and {images.name} is points")
        extractor(torch.zeros(1, *images.shape, dtype=torch.uint8))  # does it take images of this shape?
        if "inception_score" in settings.metrics and not extractor.has_logits:
            raise ValueError(
                f"features={extractor.name} has no classes, so no Inception Score: leave it out of metrics"
            )
        if "inception_score" in settings.metrics and settings.num_samples < SPLITS:
            raise ValueError(
                f"evaluation.num_samples={settings.num_samples}: the Inception Score needs {SPLITS} or more"
            )
        self.images, self.sampler, self.extractor, self.settings = images, sampler, extractor, settings

    def run(self, p: ReverseProcess, place: Place, about: dict[str, Any]) -> Results:
        """Measure `p`, in evaluation mode, and the real images beside it."""
        self.images.prepare()
        p, of_features = p.to(place.device), {"inception_score", "fid"} & set(self.settings.metrics)
        self.announce(p, place)
        metrics: dict[str, Any] = {}
        real: dict[str, Any] = {}
        curves: dict[str, list[float]] = {}
        first: Tensor | None = None
        chain: list[Tensor] = []
        if of_features:
            extractor = self.extractor.to(place.device)
            reference = self.statistics(self.settings.fid_split, extractor, place)
            n = self.settings.num_samples
            metrics, first = self._measure("samples", self.generate(p, n, place), n, reference, extractor, place)
            chain = self.chain(p, place)
            train = self.images.split("train")
            n = min(n, len(train))
            real, _ = self._measure("train images", self.originals(train, n, place), n, reference, extractor, place)
        if "bits_per_dim" in self.settings.metrics:
            metrics["bits_per_dim"], curves = self.bound(p, place)
        return Results(metrics, real, self.protocol(p), about, curves, first, chain)

    def announce(self, p: ReverseProcess, place: Place) -> None:
        """What will be done and what it costs, in evaluations of the network."""
        steps, T, settings = self.sampler.num_evaluations(p.q.T), p.q.T, self.settings
        lines = []
        if {"inception_score", "fid"} & set(settings.metrics):
            evaluations = settings.num_samples * steps
            lines.append(
                f"{settings.num_samples:,} samples x {steps} steps = {evaluations:,} evaluations of the network"
            )
        if "bits_per_dim" in settings.metrics:
            n = self._bound_count()
            lines.append(f"the bound of {n:,} images x {T} timesteps = {n * T:,} evaluations of the network")
        if place.rank == 0:
            print("\n".join(lines), flush=True)

    def protocol(self, p: ReverseProcess) -> dict[str, Any]:
        """Everything that the numbers depend on but the weights; the number of processes is not among it."""
        settings = self.settings
        protocol = {
            "data": self.images.fingerprint,
            "weights": "exponential moving average",
            "sampler": {"name": type(self.sampler).__name__.lower(), **vars(self.sampler)},
            "evaluations_per_sample": self.sampler.num_evaluations(p.q.T),
            "num_samples": settings.num_samples,
            "features": self.extractor.protocol,
            "quantiser": "round(clamp(127.5 x + 127.5, 0, 255))",
            "fid_reference": settings.fid_split,
            "inception_score_splits": SPLITS,
            "bound": {
                "split": settings.bound_split,
                "images": self._bound_count(),
                "timesteps": p.q.T,
                "decoder": settings.decoder,
                "x_0": "clipped to [-1, 1]",
            },
            "precision": settings.precision,
            "chunk": settings.chunk,
            "seed": settings.seed,
        }
        text = json.dumps(protocol, sort_keys=True, default=str)
        return {**protocol, "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:10]}

    # --- samples -----------------------------------------------------------------------------------------------------

    def generate(self, p: ReverseProcess, n: int, place: Place) -> Iterator[Batch]:
        """Samples 0..n-1 of p: those of this process's chunks."""
        for k, indices in self._chunks(n, place):
            draw = generator(place.device, self.settings.seed, SAMPLES, k)
            x_T = torch.randn((self.settings.chunk, *self.images.shape), generator=draw, device=place.device)
            with self._precision(place):
                *_, last = self.sampler(p, x_T, draw)
            yield indices, to_uint8(last.x_t)[: len(indices)]

    def chain(self, p: ReverseProcess, place: Place) -> list[UInt8[Tensor, "n c h w"]]:
        """A few samples on their way from x_T to x_0, more states towards the end, where there is more to see."""
        draw = generator(place.device, self.settings.seed, SAMPLES, 0)
        x_T = torch.randn((CHAINS, *self.images.shape), generator=draw, device=place.device)
        with self._precision(place):
            states = [x_T, *(state.x_t for state in self.sampler(p, x_T, draw))]
        shown = [round((1 - (1 - i / (STATES - 1)) ** 2) * (len(states) - 1)) for i in range(STATES)]
        return [to_uint8(states[k]).cpu() for k in dict.fromkeys(shown)]

    def originals(self, examples: Examples, n: int, place: Place) -> Iterator[Batch]:
        """Real images 0..n-1: those of this process's chunks."""
        for _, indices in self._chunks(n, place):
            yield indices, self._padded(examples, indices).to(place.device)[: len(indices)]

    def statistics(self, split: Split, extractor: FeatureExtractor, place: Place) -> FeatureStatistics:
        """Mean and covariance of the features of a split's real images."""
        examples = self.images.split(split)
        moments = FeatureMoments(extractor.width).to(place.device)
        for _, images in self.originals(examples, len(examples), place):
            moments.update(extractor(images).pool)
        statistics: FeatureStatistics = moments.compute()
        _all_counted(statistics.count, len(examples))
        return statistics

    def _measure(
        self,
        title: str,
        batches: Iterator[Batch],
        n: int,
        reference: FeatureStatistics,
        extractor: FeatureExtractor,
        place: Place,
    ) -> tuple[dict[str, Any], UInt8[Tensor, "k c h w"]]:
        """IS and FID of n images from one pass of the extractor, and (on rank 0) the first few images."""
        wanted = self.settings.metrics
        score = InceptionScore(SPLITS).to(place.device) if "inception_score" in wanted else None
        distance = FrechetDistance(reference).to(place.device) if "fid" in wanted else None
        first: list[Tensor] = []
        mine = sum(len(indices) for _, indices in self._chunks(n, place))
        with Bar(title, mine, enabled=place.rank == 0) as bar:
            for indices, images in batches:
                features = extractor(images)
                if score is not None:
                    score.update(features.logits, indices)
                if distance is not None:
                    distance.update(features.pool)
                if sum(map(len, first)) < SHOWN:
                    first.append(images.cpu())
                bar.advance(len(indices))
        metrics: dict[str, Any] = {}
        if score is not None:
            value, std = score.compute()
            metrics["inception_score"] = {"value": value, "std": std, "n": n, "splits": SPLITS}
        if distance is not None:
            value = distance.compute()
            against = {"reference": self.settings.fid_split, "reference_n": reference.count}
            metrics["fid"] = {"value": value, "n": n, **against}
        return metrics, torch.cat(first)[:SHOWN] if first else torch.empty(0, *self.images.shape, dtype=torch.uint8)

    # --- the bound ---------------------------------------------------------------------------------------------------

    def bound(self, p: ReverseProcess, place: Place) -> tuple[dict[str, Any], dict[str, list[float]]]:
        """bits/dim over a split with its parts, and its curves over t; one draw of every x_t for an image."""
        split, n = self.settings.bound_split, self._bound_count()
        examples, dims, T = self.images.split(split), math.prod(self.images.shape), p.q.T
        rows = InOrder().to(place.device)  # prior, T terms, T squared errors
        mine = list(self._chunks(n, place))
        with Bar(f"bound on {split}", len(mine) * T, enabled=place.rank == 0) as bar:
            for k, indices in mine:
                x_0 = to_unit(self._padded(examples, indices).to(place.device))
                draw = generator(place.device, self.settings.seed, BOUND, k)
                with self._precision(place):
                    part = Bound.of(prior_term(p.q, x_0), bar.watch(bound_terms(p, x_0, draw)))
                rows.update(
                    torch.cat([part.prior[:, None], part.terms, part.squared_error], 1)[: len(indices)], indices
                )
        prior, terms, squared_error = rows.compute().double().split([1, T, T], 1)
        _all_counted(len(prior), n)
        bound = Bound(prior[:, 0], terms, squared_error)
        bits, (rate, rmse) = bound.bits_per_dim(dims), bound.rate_distortion(dims)
        metric = {
            "value": float(bits.mean()),
            "stderr": float(bits.std() / math.sqrt(n)),
            "n": n,
            "split": split,
            "rate": float(bits_per_dim(bound.rate_nats, dims).mean()),
            "distortion": float(bits_per_dim(bound.distortion_nats, dims).mean()),
            "prior": float(bits_per_dim(bound.prior, dims).mean()),
        }
        curves = {
            "t": [float(t) for t in range(1, T + 1)],
            "term_bits_per_dim": bits_per_dim(bound.terms, dims).mean(0).tolist(),
            "rate_bits_per_dim": rate.tolist(),
            "rmse": rmse.tolist(),
        }
        return metric, curves

    def _bound_count(self) -> int:
        whole = len(self.images.split(self.settings.bound_split))
        return min(whole, self.settings.bound_images or whole)

    # --- chunks ------------------------------------------------------------------------------------------------------

    def _chunks(self, n: int, place: Place) -> Iterator[tuple[int, Tensor]]:
        """(k, indices) of every world_size-th chunk of 0..n-1; the last may be short."""
        chunk = self.settings.chunk
        for k in range(place.rank, -(-n // chunk), place.world_size):
            yield k, torch.arange(k * chunk, min(n, (k + 1) * chunk))

    def _padded(self, examples: Examples, indices: Tensor) -> Tensor:
        """The examples, the last repeated up to a whole chunk: a convolution's rounding depends on its batch."""
        whole = torch.arange(self.settings.chunk).clamp(max=len(indices) - 1) + indices[0]
        return examples.__getitems__(whole.tolist())

    def _precision(self, place: Place) -> AbstractContextManager[None]:
        enabled = self.settings.precision == "bf16-mixed"
        return torch.autocast(place.device.type, torch.bfloat16, enabled=enabled)


def _all_counted(seen: int, due: int) -> None:
    """Each example exactly once, whatever the number of processes."""
    if seen != due:
        raise RuntimeError(f"{seen} examples were counted where {due} were due")
