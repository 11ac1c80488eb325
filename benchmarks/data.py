"""Images per second out of the DataModule, beside torchvision's datasets in a DataLoader, and peak memory.

    python benchmarks/data.py [--workers 2] [--images 50000] [--jpegs 5000] [--folder WHERE_TO_KEEP_THE_JPEGS] [--toy]

Each line runs in a process of its own. Speeds are the best of three passes over the images, in shuffled order. Memory
is the peak of the resident set beyond what the imports take, over the size of the decoded array; pages mapped from the
cache count, although all processes of a machine share them.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ddpm.data import cache
from ddpm.data.dataset import Dataset, Examples, InMemory, Split
from ddpm.data.folder import Folder
from ddpm.data.module import DataModule

SIDE, BATCH_IN_MEMORY, BATCH_FROM_FOLDER = 256, 128, 64
PASSES = 3


def random_images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), np.uint8)


class Cached(Dataset):
    """n 32x32 colour images as cifar10 keeps them: one cached array, mapped."""

    name, shape, fingerprint = "cached", (3, 32, 32), "cached"

    def __init__(self, n: int, root: Path) -> None:
        self.n, self.root = n, root

    def prepare(self) -> None:
        self.split("train")

    def split(self, name: Split) -> Examples:
        def build(writer: cache.Writer) -> None:
            for start in range(0, self.n, 10_000):
                writer.append("images", random_images(min(10_000, self.n - start), start))

        return InMemory(cache.tensor(cache.arrays(self.root, self.name, {"n": self.n}, build)["images"]))


def ours(dataset: Dataset, batch_size: int, workers: int) -> dict[str, float]:
    before, start = peak_bytes(), time.perf_counter()
    dataset.prepare()
    prepared = time.perf_counter() - start
    n = len(dataset.split("train"))
    module = DataModule(dataset, batch_size, seed=0, max_steps=n // batch_size, num_workers=workers)
    module.setup()
    speed = best_speed(module.train_dataloader)
    array = n * np.prod(dataset.shape)
    return {"images/s": speed, "prepared in s": prepared, "memory / array": (peak_bytes() - before) / array}


def torchvision_in_memory(n: int, workers: int) -> dict[str, float]:
    from torchvision.datasets import CIFAR10
    from torchvision.transforms import ToTensor

    images = CIFAR10.__new__(CIFAR10)  # its files would have to be pickled for it to read them
    images.data = random_images(n).transpose(0, 2, 3, 1).copy()
    images.targets, images.transform, images.target_transform = [0] * n, ToTensor(), None
    loader: DataLoader[Any] = DataLoader(images, BATCH_IN_MEMORY, shuffle=True, drop_last=True, num_workers=workers)
    return {"images/s": best_speed(lambda: loader)}


def torchvision_folder(folder: Path, workers: int) -> dict[str, float]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    images = ImageFolder(str(folder), Compose([Resize(SIDE), CenterCrop(SIDE), ToTensor()]))
    loader: DataLoader[Any] = DataLoader(images, BATCH_FROM_FOLDER, shuffle=True, drop_last=True, num_workers=workers)
    return {"images/s": best_speed(lambda: loader)}


def best_speed(loader: Callable[[], Iterable[Any]]) -> float:
    speeds = []
    for _ in range(PASSES):
        start, seen = time.perf_counter(), 0
        for batch in loader():
            seen += len(batch[0] if isinstance(batch, list | tuple) else batch)
        speeds.append(seen / (time.perf_counter() - start))
    return max(speeds)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_jpegs(folder: Path, n: int) -> None:
    """Smooth colours with some texture: about 20 kB each, as photographs of this size have."""
    random = np.random.default_rng(0)
    for k in range(n):
        path = folder / f"{k % 10}" / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth = Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).resize((SIDE, SIDE))
        noisy = np.asarray(smooth, np.int16) + random.integers(-8, 9, (SIDE, SIDE, 3), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def measure(what: str, scratch: Path, jpegs: Path, images: int, workers: int) -> dict[str, float]:
    root = str(scratch)
    match what:
        case "32x32 in memory, DataModule":
            return ours(Cached(images, scratch), BATCH_IN_MEMORY, workers)
        case "32x32 in memory, torchvision CIFAR10":
            return torchvision_in_memory(images, workers)
        case "JPEG folder, DataModule, cached array":
            return ours(Folder(SIDE, str(jpegs), held_out=0.001, root=root), BATCH_FROM_FOLDER, workers)
        case "JPEG folder, DataModule, streamed":
            streamed = Folder(SIDE, str(jpegs), held_out=0.001, root=root, array_gib=0.0)
            return ours(streamed, BATCH_FROM_FOLDER, workers)
        case "JPEG folder, torchvision ImageFolder":
            return torchvision_folder(jpegs, workers)
    raise ValueError(what)


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--jpegs", type=int, default=5_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", help=record.HIDDEN)
    parser.add_argument("--scratch", type=Path, help=record.HIDDEN)
    args = parser.parse_args()
    if args.measure:
        torch.set_num_threads(1)  # as in a DataLoader's workers; a pool of threads per small image helps nobody
        print(json.dumps(measure(args.measure, args.scratch, args.folder, args.images, args.workers)))
        return

    images, jpegs = (500, 200) if args.toy else (args.images, args.jpegs)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch, "jpegs")
        if not folder.exists():
            write_jpegs(folder, jpegs)
        for what, workers in (
            ("32x32 in memory, DataModule", 0),
            ("32x32 in memory, torchvision CIFAR10", 0),
            ("32x32 in memory, torchvision CIFAR10", args.workers),
            ("JPEG folder, DataModule, cached array", 0),
            ("JPEG folder, DataModule, streamed", 0),
            ("JPEG folder, torchvision ImageFolder", 0),
            ("JPEG folder, DataModule, streamed", args.workers),
            ("JPEG folder, torchvision ImageFolder", args.workers),
        ):
            own = ["--measure", what, "--scratch", scratch, "--folder", str(folder)]
            numbers = ["--workers", str(workers), "--images", str(images)]
            command = [sys.executable, __file__, *own, *numbers]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[f"{what}, {workers} workers"] = json.loads(printed)
    record.write("data", {"images": images, "JPEGs": jpegs, "found": found}, args.records)


if __name__ == "__main__":
    main()
