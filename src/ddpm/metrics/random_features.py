"""Features that need no download: what a small convolutional network with fixed random weights sees in an image.

A network that was never trained still has FID grow with blur, noise, missing modes and foreign images; how far that
goes, and where Inception sees more, is in docs/evaluation.md. Its numbers compare with themselves only.
"""

import hashlib
import math
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm.data.pixels import to_unit
from ddpm.metrics.features import FeatureExtractor, Features

WIDTHS = (32, 64, 128)  # filters at the full, the half and the quarter resolution
STREAM = b"ddpm.metrics.random_features, version 1"  # of which the weights are a hash; whatever changes here, count up
DETAIL = 8.0  # factor of what a 3x3 mean takes away, which is faint in natural images and shows blur and noise


@final
class RandomNetwork(FeatureExtractor):
    """The mean and the deviation, over an image, of each filter's response after a ReLU, at three resolutions.

    The weights are the bytes of SHAKE-128, so that they are the same on any machine and in any version. Images of every
    size from 4x4 are seen as they are; gray ones are repeated to RGB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = "random"
        shapes = [(out, ins, 3, 3) for ins, out in zip((6, *WIDTHS), WIDTHS, strict=False)]
        stream = hashlib.shake_128(STREAM).digest(sum(map(math.prod, shapes)))
        self.protocol = {
            "extractor": self.name,
            "layer": f"mean and deviation of {' + '.join(map(str, WIDTHS))} random filters",
            "logits": "none",
            "resize": "none",
            "weights": hashlib.sha256(stream).hexdigest(),
        }
        self.trusted, self.width, self.has_logits = True, 2 * sum(WIDTHS), False
        begin = 0
        for level, shape in enumerate(shapes):
            end = begin + math.prod(shape)
            self.register_buffer(f"filters{level}", _filters(stream[begin:end], shape, balanced=level > 0))
            begin = end

    def extract(self, images: UInt8[Tensor, "b c h w"]) -> Features:
        if images.shape[1] not in (1, 3) or min(images.shape[2:]) < 4:
            raise ValueError(
                f"features=random takes gray or RGB images of at least 4x4, not {'x'.join(map(str, images.shape[1:]))}"
            )
        x = to_unit(images).expand(-1, 3, -1, -1)
        h, features = torch.cat([x, DETAIL * (x - F.avg_pool2d(_padded(x), 3, 1))], 1), []
        for level in range(len(WIDTHS)):
            h = F.relu(F.conv2d(_padded(h if level == 0 else F.avg_pool2d(h, 2)), self.get_buffer(f"filters{level}")))
            features += [h.mean((2, 3)), h.std((2, 3), correction=0)]
        return Features(torch.cat(features, 1), None)


def _filters(stream: bytes, shape: tuple[int, ...], *, balanced: bool) -> Float[Tensor, "out ins 3 3"]:
    """Uniform weights that keep the scale of what passes through them and a ReLU; He et al. 2015.

    Balanced filters sum to 0, so that they respond to differences: the channels that they see are never negative.
    """
    weights = np.frombuffer(stream, np.int8).reshape(shape).astype(np.float64)
    if balanced:
        weights -= weights.mean((1, 2, 3), keepdims=True)
    deviation = math.sqrt((256**2 - 1) / 12)  # of a byte
    return torch.tensor(weights / deviation * math.sqrt(2 / math.prod(shape[1:])), dtype=torch.float32)


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="replicate")
