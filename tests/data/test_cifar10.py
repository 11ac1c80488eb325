import hashlib
import io
import tarfile

import numpy as np
import pytest

from ddpm.data import cifar10
from ddpm.data.cifar10 import Cifar10
from ddpm.data.dataset import DataError
from ddpm.data.download import Remote

PER_FILE = 7


@pytest.fixture
def made(tmp_path, monkeypatch):
    """CIFAR-10 in its own archive, with 5 x 7 + 7 images, and what it holds."""
    random = np.random.default_rng(0)
    held = {}
    archive = tmp_path / "there" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for split, members in cifar10.MEMBERS.items():
            images = random.integers(0, 256, (PER_FILE * len(members), 3, 32, 32), np.uint8)
            labels = random.integers(0, 10, len(images), np.uint8)
            held[split] = images, labels
            records = np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1)
            for k, member in enumerate(members):
                content = records[k * PER_FILE : (k + 1) * PER_FILE].tobytes()
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{member}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    remote = Remote(archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar10, "ARCHIVE", remote)
    return held, archive


def test_images_and_labels(made, tmp_path):
    held, _ = made
    dataset = Cifar10(root=str(tmp_path / "root"))
    dataset.prepare()
    for split in ("train", "test"):
        images, labels = held[split]
        examples = dataset.split(split)
        assert np.array_equal(examples.__getitems__(list(range(len(examples)))), images)
        assert examples.labels is not None
        assert examples.labels.tolist() == labels.tolist()
    assert examples.in_memory
    assert dataset.horizontal_flip


def test_the_archive_is_not_read_again(made, tmp_path):
    _, archive = made
    for _ in range(2):
        dataset = Cifar10(path=str(archive.parent), root=str(tmp_path / "root"))
        dataset.prepare()
        archive.unlink(missing_ok=True)
    assert len(dataset.split("train")) == 5 * PER_FILE


def test_an_archive_cut_in_half(made, tmp_path):
    _, archive = made
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"{archive} is not the file that it should be"):
        Cifar10(path=str(archive.parent), root=str(tmp_path / "root")).prepare()
    assert not list(tmp_path.glob("root/cache/cifar*"))
