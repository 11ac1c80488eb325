"""The protocol that every number carries: what it depends on besides the weights."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from ddpm.checkpoints.checkpoint import digest_of
from ddpm.data.conditioning import Conditioning
from ddpm.data.dataset import Dataset
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation.bound import draws_of_x_1
from ddpm.evaluation.settings import EvaluationSettings
from ddpm.metrics import registry
from ddpm.metrics.features import FeatureExtractor
from ddpm.metrics.metric import SampleMetric


def protocol_of(
    p: ReverseProcess,
    images: Dataset,
    sampler: Sampler,
    extractor: FeatureExtractor,
    metrics: Mapping[str, SampleMetric],
    settings: EvaluationSettings,
    conditioning: Conditioning,
    guidance: Guidance,
) -> dict[str, Any]:
    """Everything that the numbers depend on but the weights, and its fingerprint.

    The number of processes is not among it: it does not change the numbers.

    Args:
        metrics: of samples, all that there are, by name.
    """
    protocol: dict[str, Any] = {
        "data": images.fingerprint,
        "weights": settings.weights,
        "sampler": {"name": type(sampler).__name__.lower(), **stated(sampler)},
        "timesteps": p.q.T,
        "evaluations_per_sample": sampler.num_evaluations(p.q),
        "num_samples": settings.num_samples,
        "features": extractor.protocol,
        "feature_metrics": _of_metrics(metrics, settings),
        "quantiser": "round(clamp(127.5 x + 127.5, 0, 255))",
        "fid_reference": settings.fid_split,
        "bound": {
            "images": {split: settings.bound_count(images, split) for split in settings.bound_splits},
            "evaluations": settings.evaluations or p.q.T,
            "decoder": images.kind.decoder_name(settings.decoder),
            "x_0": "clipped to [-1, 1]",
        },
        "precision": settings.precision,
        "chunk": settings.chunk,
        "seed": settings.seed,
    }
    if not settings.evaluations and (draws := draws_of_x_1(p.q.T)) > 1:
        protocol["bound"]["draws_of_x_1"] = draws
    if conditioning.needs:  # what came before conditions keeps its fingerprint
        order = f"of the {settings.reference_splits[0]} split's examples, in an order drawn from the seed"
        protocol["condition"] = {"told": conditioning.needs, **stated(conditioning), "of_samples": order}
    if guidance.evaluations > 1:
        protocol["guidance"] = {"name": type(guidance).__name__.lower(), **stated(guidance)}
    text = json.dumps(protocol, sort_keys=True, default=str)
    return {**protocol, "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:10]}


def stated(owner: Sampler | Conditioning | Guidance) -> dict[str, Any]:
    """The attributes of an object, which are its part of the protocol; of a network, the digest of its weights.

    Raises:
        ValueError: one of them has no text that is the same whenever it is asked for.
    """
    found = {
        key: digest_of(value.state_dict()) if isinstance(value, nn.Module) else value
        for key, value in vars(owner).items()
    }
    for key, value in found.items():
        try:
            json.dumps(value)
        except TypeError:
            raise ValueError(
                f"{type(owner).__name__}.{key} is a {type(value).__name__}: what a sampler, a condition or a guidance "
                "keeps is part of the protocol of numbers, and must be numbers, texts, or lists of them"
            ) from None
    return found


def digest_of_weights(p: ReverseProcess) -> str:
    """SHA-256 of the network's weights, with their names."""
    return digest_of(p.network.state_dict())


def _of_metrics(metrics: Mapping[str, SampleMetric], settings: EvaluationSettings) -> dict[str, Any]:
    """The shipped metrics' parts always, as in every protocol so far; a further metric's only if it is measured."""
    shipped = registry.shipped()
    counted = [metric for name, metric in metrics.items() if name in shipped or name in settings.metrics]
    return {name: value for metric in counted for name, value in metric.protocol.items()}
