"""MNIST and Fashion-MNIST: 70,000 gray images of 28 x 28 in 10 classes, padded with black to 32 x 32.

Y. LeCun, C. Cortes and C. Burges, "The MNIST Database of Handwritten Digits", 1998; H. Xiao, K. Rasul and R. Vollgraf,
"Fashion-MNIST", 2017. The files are in the idx format: two zero bytes, the type, the number of dimensions, each
dimension as a big-endian int32, then the values.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ddpm.data import cache
from ddpm.data.dataset import SPLITS, DataError, Dataset, Examples, InMemory, Split
from ddpm.data.download import Remote

MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES: dict[str, dict[Split, tuple[Remote, Remote]]] = {  # images, labels
    "mnist": {
        "train": (
            Remote(
                f"{MNIST}/train-images-idx3-ubyte.gz",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            Remote(
                f"{MNIST}/train-labels-idx1-ubyte.gz",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
        ),
        "test": (
            Remote(
                f"{MNIST}/t10k-images-idx3-ubyte.gz",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            Remote(
                f"{MNIST}/t10k-labels-idx1-ubyte.gz",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    },
    "fashion_mnist": {
        "train": (
            Remote(
                f"{FASHION}/train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            Remote(
                f"{FASHION}/train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
        ),
        "test": (
            Remote(
                f"{FASHION}/t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            Remote(
                f"{FASHION}/t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    },
}
PAD = 2


class Mnist(Dataset):
    """60,000 images to train on and 10,000 to test on, 1 x 32 x 32. `name` is mnist or fashion_mnist.

    `path` is the folder of the four .gz files, `root`/`name` by default; the decoded array is kept under `root`.
    """

    shape = (1, 32, 32)
    classes = 10

    def __init__(self, name: str = "mnist", path: str | None = None, root: str = "data") -> None:
        if name not in FILES:
            raise DataError(f"data.name={name}: it must be one of {', '.join(FILES)}")
        self.name = name
        self.root = Path(root).expanduser()
        self.path = Path(path).expanduser() if path else self.root / name

    @property
    def fingerprint(self) -> str:
        return f"{self.name} 60000+10000 1x32x32, 28x28 padded with 0"

    def prepare(self) -> None:
        for name in SPLITS:
            self.split(name)

    def split(self, name: Split) -> Examples:
        images, labels = FILES[self.name][name]

        def decode(writer: cache.Writer) -> None:
            pixels = read_idx(images.fetch(self.path), dimensions=3)
            writer.append("images", np.pad(pixels, ((0, 0), (PAD, PAD), (PAD, PAD)))[:, None])
            writer.append("labels", read_idx(labels.fetch(self.path), dimensions=1).astype(np.int64))

        key = {"images": images.sha256, "labels": labels.sha256, "pad": PAD}
        arrays = cache.arrays(self.root, f"{self.name}-{name}", key, decode)
        return InMemory(cache.tensor(arrays["images"]), cache.tensor(arrays["labels"]))


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The bytes of a gzipped idx file. Raises DataError if it is not one, or has another number of dimensions."""
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, dtype, rank = struct.unpack_from(">HBB", content)
        if (zeros, dtype, rank) != (0, 0x08, dimensions):
            raise ValueError(f"its header is {content[:4].hex(' ')}, expected 00 00 08 {dimensions:02x}")
        shape = struct.unpack_from(f">{rank}I", content, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is not an idx file of {dimensions} dimensions: {error}") from error
