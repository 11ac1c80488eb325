"""Features of random weights are the same everywhere, and tell worse images from better ones."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate2d

from ddpm.data.photos import patches
from ddpm.metrics.fid import frechet_distance
from ddpm.metrics.random_features import RandomNetwork
from ddpm.metrics.statistics import FeatureMoments


@pytest.fixture(scope="module")
def network():
    return RandomNetwork()


def by_hand(image):
    """The features of an image [3, h, w], with SciPy and in float64."""
    stream = hashlib.shake_128(b"ddpm.metrics.random_features, version 1").digest(9 * (6 * 32 + 32 * 64 + 64 * 128))
    weights = np.frombuffer(stream, np.int8).astype(float)

    def edged(channel):
        return np.pad(channel, 1, mode="edge")

    x = image / 127.5 - 1
    mean = np.stack([correlate2d(edged(channel), np.full((3, 3), 1 / 9), "valid") for channel in x])
    h, found, ins, used = np.concatenate([x, 8 * (x - mean)]), [], 6, 0
    for level, out in enumerate((32, 64, 128)):
        filters = weights[used : used + out * ins * 9].reshape(out, ins, 3, 3)
        used += filters.size
        if level:
            height, width = h.shape[1] // 2, h.shape[2] // 2
            h = h[:, : 2 * height, : 2 * width].reshape(ins, height, 2, width, 2).mean((2, 4))
            filters = filters - filters.mean((1, 2, 3))[:, None, None, None]
        filters = filters / np.sqrt(65535 / 12) * np.sqrt(2 / (9 * ins))
        maps = [sum(correlate2d(edged(c), f, "valid") for c, f in zip(h, each, strict=True)) for each in filters]
        h, ins = np.maximum(np.stack(maps), 0), out
        found += [h.mean((1, 2)), h.std((1, 2))]
    return np.concatenate(found)


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 5, 4)])
def test_features_are_those_of_the_same_network_by_hand(network, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    want = by_hand(np.broadcast_to(image, (3, *shape[1:])).astype(float))
    found = network(torch.from_numpy(image)[None])
    np.testing.assert_allclose(found.pool[0].numpy(), want, rtol=1e-4, atol=1e-5)
    assert found.logits is None
    assert network.width == len(want)


def test_the_weights_have_not_changed(network):
    """Numbers of earlier runs would no longer compare: another definition needs another name."""
    assert network.protocol["weights"] == "e5b0e8991e163081aadce4508d392e7b93588889dd24ba922c7070b605029019"


def test_images_that_it_does_not_take_are_refused(network):
    for shape in ((2, 8, 8), (3, 3, 8)):
        with pytest.raises(ValueError, match="gray or RGB images of at least 4x4"):
            network(torch.zeros(1, *shape, dtype=torch.uint8))


def blurred(images, sigma, draw):
    return gaussian_filter(images.astype(float), (0, 0, sigma, sigma))


def noisy(images, deviation, draw):
    return images + deviation * draw.standard_normal(images.shape)


def mixed(images, share, draw):
    """Some are gradients of one colour, as no photograph is."""
    made = images.copy()
    made[: int(share * len(made))] = np.linspace(0, 255, images.shape[-1]).astype(np.uint8)
    return made


def dropped(images, share, draw):
    """The brightest go missing, and others stand in for them."""
    kept = np.argsort(images.mean((1, 2, 3)))[: int((1 - share) * len(images))]
    return images[draw.choice(kept, len(images))]


@pytest.mark.long
@pytest.mark.parametrize(
    ("worse", "amounts"),
    [(blurred, (0.5, 1, 2)), (noisy, (4, 10, 30)), (mixed, (0.1, 0.3, 0.6)), (dropped, (0.3, 0.6, 0.9))],
)
def test_worse_images_have_a_larger_fid(network, worse, amounts):
    images = patches((16, 16), "train")[:1600]
    real, others = moments(network, images[:800]), images[800:].numpy()
    fids = [frechet_distance(moments(network, torch.from_numpy(others)), real)]
    for amount in amounts:
        made = worse(others, amount, np.random.default_rng(1)).round().clip(0, 255).astype(np.uint8)
        fids.append(frechet_distance(moments(network, torch.from_numpy(made)), real))
    assert fids == sorted(fids)
    assert fids[-1] > 2 * fids[0]


def moments(network, images):
    seen = FeatureMoments(network.width)
    seen.update(network(images).pool)
    return seen.compute()
