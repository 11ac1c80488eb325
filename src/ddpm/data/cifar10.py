"""CIFAR-10 in its binary version, which needs no pickle: 60,000 colour images of 32 x 32 in 10 classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import tarfile
from pathlib import Path

import numpy as np

from ddpm.data import cache
from ddpm.data.dataset import SPLITS, Dataset, Examples, InMemory, Split
from ddpm.data.download import Remote

ARCHIVE = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
MEMBERS: dict[Split, list[str]] = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
RECORD = 1 + 3 * 32 * 32  # the class, then the red, green and blue planes


class Cifar10(Dataset):
    """50,000 images to train on and 10,000 to test on, 3 x 32 x 32, trained on with flips.

    `path` is the folder of cifar-10-binary.tar.gz, `root`/cifar10 by default; the decoded array is kept under `root`.
    """

    name = "cifar10"
    shape = (3, 32, 32)
    classes = 10
    horizontal_flip = True
    fingerprint = "cifar10 50000+10000 3x32x32"

    def __init__(self, path: str | None = None, root: str = "data") -> None:
        self.root = Path(root).expanduser()
        self.path = Path(path).expanduser() if path else self.root / self.name

    def prepare(self) -> None:
        for name in SPLITS:
            self.split(name)

    def split(self, name: Split) -> Examples:
        key = {"source": ARCHIVE.sha256, "members": MEMBERS[name]}
        arrays = cache.arrays(self.root, f"cifar10-{name}", key, lambda writer: self._decode(name, writer))
        return InMemory(cache.tensor(arrays["images"]), cache.tensor(arrays["labels"]))

    def _decode(self, split: Split, writer: cache.Writer) -> None:
        archive = ARCHIVE.fetch(self.path)
        with tarfile.open(archive) as tar:
            for member in MEMBERS[split]:
                file = tar.extractfile(f"cifar-10-batches-bin/{member}")
                assert file is not None
                records = np.frombuffer(file.read(), np.uint8).reshape(-1, RECORD)
                writer.append("labels", records[:, 0].astype(np.int64))
                writer.append("images", records[:, 1:].reshape(-1, 3, 32, 32))
