"""Crafted files of tensors: nothing in them is executed, and none unpacks to more than there is of it."""

import copy
import zipfile

import pytest
import torch

from ddpm.checkpoints import safe_reading


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "honest.ckpt"
    torch.save({"weights": torch.arange(500.0), "more": [torch.ones(3)]}, file)
    return file


def test_an_honest_file_is_read(file):
    content = safe_reading.read(file)
    assert content["weights"].tolist() == list(range(500))
    assert content["more"][0].tolist() == [1, 1, 1]


def test_nothing_is_executed(tmp_path):
    torch.save({"weights": Hostile(tmp_path / "was run")}, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match="holds objects other than tensors"):
        safe_reading.read(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("where", [lambda t: t, lambda t: [{"deep": (t,)}]])
def test_a_tensor_is_no_larger_than_the_file(where, tmp_path):
    """One stored number can be shaped as any number of them."""
    torch.save({"weights": where(torch.zeros(1).expand(10**6))}, tmp_path / "vast.ckpt")
    with pytest.raises(ValueError, match="claims to be larger than the file"):
        safe_reading.read(tmp_path / "vast.ckpt")


def test_a_compressed_archive_is_refused_even_where_it_is_no_smaller(tmp_path):
    noise = bytes(torch.randint(256, (1000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    with zipfile.ZipFile(tmp_path / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", noise)
    with pytest.raises(ValueError, match="is compressed, and may unpack to any size"):
        safe_reading.read(tmp_path / "packed.ckpt")


def test_records_that_share_their_bytes_are_refused(file):
    with zipfile.ZipFile(file, "a") as archive:
        (record,) = (each for each in archive.infolist() if each.file_size == 2000)
        archive.filelist += [copy.copy(record) for _ in range(9)]
        archive.writestr("one more", b"")  # so that the directory is written anew
    with pytest.raises(ValueError, match="may unpack to any size"):
        safe_reading.read(file)


def test_a_flipped_bit_is_told(file):
    content = bytearray(file.read_bytes())
    content[content.index(torch.arange(500.0).numpy().tobytes()) + 700] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged \(.*data/0\)"):
        safe_reading.read(file)
