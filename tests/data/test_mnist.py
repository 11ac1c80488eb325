import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from ddpm.data import mnist
from ddpm.data.dataset import DataError
from ddpm.data.download import Remote
from ddpm.data.mnist import Mnist, read_idx


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


@pytest.fixture(params=["mnist", "fashion_mnist"])
def made(request, tmp_path, monkeypatch):
    """A data set of 20 + 5 images in MNIST's own files, and what they hold."""
    random = np.random.default_rng(0)
    held, files = {}, {}
    for split, n in (("train", 20), ("test", 5)):
        held[split] = random.integers(0, 256, (n, 28, 28), np.uint8), random.integers(0, 10, n, np.uint8)
        remotes = []
        for real, values in zip(mnist.FILES[request.param][split], held[split], strict=True):
            content = idx(values)
            file = tmp_path / "there" / real.url.rsplit("/", 1)[-1]
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
            remotes.append(Remote(file.as_uri(), hashlib.sha256(content).hexdigest()))
        files[split] = tuple(remotes)
    monkeypatch.setitem(mnist.FILES, request.param, files)
    return request.param, held, tmp_path


def test_images_are_padded_to_32(made):
    name, held, folder = made
    dataset = Mnist(name, root=str(folder / "root"))
    dataset.prepare()
    for split in ("train", "test"):
        pixels, labels = held[split]
        examples = dataset.split(split)
        images = examples.__getitems__(list(range(len(examples))))
        assert images.shape == (len(pixels), *dataset.shape)
        assert np.array_equal(images[:, 0, 2:30, 2:30], pixels)
        assert images.sum() == pixels.sum(dtype=np.int64)
        assert examples.labels is not None
        assert examples.labels.tolist() == labels.tolist()


def test_the_cache_alone_is_enough(made):
    name, _, folder = made
    dataset = Mnist(name, path=str(folder / "there"), root=str(folder / "root"))
    dataset.prepare()
    for file in (folder / "there").iterdir():
        file.unlink()
    assert len(Mnist(name, root=str(folder / "root")).split("train")) == 20


def test_a_file_cut_in_half_is_refused_by_its_checksum(made):
    name, _, folder = made
    file = folder / "there" / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=f"{file} is not the file that it should be"):
        Mnist(name, path=str(folder / "there"), root=str(folder / "root")).prepare()


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"\0\0"), idx(np.zeros((2, 2))), idx(np.zeros((2, 2, 2)))[:-9]],
    ids=["empty", "no gzip", "two bytes", "two dimensions", "cut short"],  # gzip's bytes hold the time
)
def test_what_is_not_idx(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.gz is not an idx file"):
        read_idx(tmp_path / "x.gz", dimensions=3)


def test_unknown_name():
    with pytest.raises(DataError, match="mnist, fashion_mnist"):
        Mnist("kmnist")


def test_the_published_checksums_are_whole():
    remotes = [remote for files in mnist.FILES.values() for pair in files.values() for remote in pair]
    assert len({remote.sha256 for remote in remotes}) == 8
    assert all(len(remote.sha256) == 64 for remote in remotes)


def test_flips_are_off():
    assert not Mnist().horizontal_flip
    assert torch.Size(Mnist().shape) == (1, 32, 32)
