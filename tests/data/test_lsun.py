import hashlib
import io
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data import lsun as lsun_module
from ddpm.data.dataset import DataError
from ddpm.data.folder import Folder
from ddpm.data.lsun import Keys, Lmdb


def write(folder: Path, levels: range) -> None:
    """An LMDB as LSUN's: hexadecimal keys, WebP values; of what gray a picture is, tells it from the others."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**24) as env, env.begin(write=True) as transaction:
        for level in levels:
            file = io.BytesIO()
            rows = np.clip(level + np.arange(-4, 5), 0, 255)[:, None, None]
            Image.fromarray(np.broadcast_to(rows, (9, 12, 3)).astype(np.uint8)).save(file, "WEBP", lossless=True)
            transaction.put(f"{level:040x}".encode(), file.getvalue())


def levels(dataset: Folder, split: str) -> list[int]:
    examples = dataset.split(split)
    return examples.__getitems__(list(range(len(examples)))).float().mean((1, 2, 3)).round().int().tolist()


@pytest.fixture
def lsun(tmp_path):
    write(tmp_path / "lsun" / "church_outdoor_train_lmdb", range(10, 30))
    write(tmp_path / "lsun" / "church_outdoor_val_lmdb", range(100, 105))
    return tmp_path / "lsun"


@pytest.mark.parametrize("below", ["", "church_outdoor_train_lmdb"])
@pytest.mark.parametrize("array_gib", [1.0, 0.0])
def test_train_and_val(lsun, below, array_gib):
    dataset = Folder(8, str(lsun / below), "lsun_church", root=str(lsun.parent / "root"), array_gib=array_gib)
    dataset.prepare()
    assert levels(dataset, "train") == list(range(10, 30))
    assert levels(dataset, "test") == list(range(100, 105))
    assert dataset.split("train").labels is None
    assert dataset.fingerprint.startswith("lsun_church 20+5 3x8x8")


def test_a_category_without_val(tmp_path):
    write(tmp_path / "cat", range(10, 30))
    dataset = Folder(8, str(tmp_path / "cat"), "lsun_cat", held_out=0.1, root=str(tmp_path / "root"))
    dataset.prepare()
    assert len(levels(dataset, "test")) == 2
    assert sorted(levels(dataset, "train") + levels(dataset, "test")) == list(range(10, 30))


def test_several_categories(lsun):
    write(lsun / "bedroom_train_lmdb", range(3))
    with pytest.raises(DataError, match=r"2 LMDBs to train on: name one, data.path=.*/bedroom_train_lmdb"):
        Folder(8, str(lsun), root=str(lsun.parent / "root")).prepare()


def test_nothing_but_bytes_is_kept(lsun):
    source = Lmdb(lsun / "church_outdoor_train_lmdb", lsun.parent / "root")
    assert source.read(3)[:4] == b"RIFF"
    kept = {path.suffix for path in (lsun.parent / "root").rglob("*") if path.is_file()}
    assert kept == {".raw", ".json", ".lock"}
    assert not list(lsun.rglob("lock.mdb.new"))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_open_it_for_themselves(lsun, method):
    dataset = Folder(8, str(lsun), root=str(lsun.parent / "root"), array_gib=0.0)
    dataset.prepare()
    examples = dataset.split("train")
    here = examples.__getitems__([0, 1])  # opens it in this process, too
    loader = torch.utils.data.DataLoader(
        examples,
        batch_sampler=[[0, 1], [2, 3]],
        num_workers=2,
        collate_fn=torch.Tensor.contiguous,
        multiprocessing_context=multiprocessing.get_context(method),
    )
    batches = list(loader)
    assert torch.equal(batches[0], here)
    assert [int(batch.float().mean().round()) for batch in batches] == [10, 12]


def test_lmdb_is_not_installed(lsun, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    monkeypatch.setattr("ddpm.data.lsun._environments", {})
    with pytest.raises(DataError, match=r"pip install 'ddpm\[lsun\]'"):
        Folder(8, str(lsun), root=str(lsun.parent / "root")).prepare()


def test_no_lmdb(tmp_path):
    (tmp_path / "lsun").mkdir()
    (tmp_path / "lsun" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="lsun is not an LMDB that can be read"):
        Folder(8, str(tmp_path / "lsun"), root=str(tmp_path / "root")).prepare()


def test_an_empty_lmdb(tmp_path):
    write(tmp_path / "lsun", range(0))
    with pytest.raises(DataError, match="lsun is empty"):
        Folder(8, str(tmp_path / "lsun"), root=str(tmp_path / "root")).prepare()


def test_a_broken_picture_in_it(lsun):
    folder = lsun / "church_outdoor_train_lmdb"
    with lmdb.open(str(folder), map_size=2**24) as env, env.begin(write=True) as transaction:
        transaction.put(b"zzz", b"")
    root = str(lsun.parent / "root")
    with pytest.raises(DataError, match="church_outdoor_train_lmdb key b'zzz': it is empty"):
        Folder(8, str(lsun), root=root).prepare()
    dataset = Folder(8, str(lsun), root=root, on_error="skip")
    dataset.prepare()
    assert len(dataset.split("train")) == 20


def test_the_keys_of_an_lmdb_that_was_written_anew_are_listed_anew(tmp_path):
    folder, file = tmp_path / "a_lmdb", tmp_path / "a_lmdb" / "data.mdb"
    write(folder, range(10, 15))
    size, stamp = file.stat().st_size, file.stat().st_mtime_ns
    assert len(Lmdb(folder, tmp_path / "root")) == 5
    lsun_module._environments.pop(folder.absolute())[1].close()
    shutil.rmtree(folder)
    write(folder, range(20, 25))
    os.utime(file, ns=(stamp + 1, stamp + 1))
    assert file.stat().st_size == size
    assert Lmdb(folder, tmp_path / "root").keys[0] == f"{20:040x}".encode()


def write_noise(folder: Path, keys: list[bytes]) -> None:
    """An LMDB of PNGs that do not compress, so that most of it is their pages."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    with lmdb.open(str(folder), map_size=2**26) as env, env.begin(write=True) as transaction:
        for key in keys:
            file = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
            transaction.put(key, file.getvalue())


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_an_lmdb_that_was_cut_short(tmp_path, share):
    """LMDB maps its file: to read where it has ended would kill the process by SIGBUS."""
    folder = tmp_path / "train_lmdb"
    write_noise(folder, [b"%040d" % k for k in range(60)])
    os.truncate(folder / "data.mdb", int(share * (folder / "data.mdb").stat().st_size))
    with pytest.raises(DataError, match=r"data\.mdb was cut short: copy it again"):
        Folder(8, str(folder), root=str(tmp_path / "root")).prepare()


def test_a_whole_lmdb_may_end_before_its_last_page(tmp_path):
    """Pages at the end that one transaction takes and frees again are never written."""
    folder = tmp_path / "train_lmdb"
    write(folder, range(10, 30))
    with lmdb.open(str(folder), map_size=2**24) as env:
        for size in (20_000, 20_001, 20_002):  # so that there are free pages, which LMDB then looks at
            with env.begin(write=True) as transaction:
                transaction.put(b"zzz", bytes(size))
        with env.begin(write=True) as transaction:
            transaction.put(b"gone", bytes(40_000))
            transaction.delete(b"gone")
    lacking = lsun_module._open(folder)
    assert (lacking.info()["last_pgno"] + 1) * lacking.stat()["psize"] > (folder / "data.mdb").stat().st_size
    assert len(Lmdb(folder, tmp_path / "root")) == 21


def test_an_lmdb_whose_pages_were_overwritten(tmp_path):
    folder = tmp_path / "train_lmdb"
    write(folder, range(10, 30))
    content = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(content[: 2 * 4096] + b"\xff" * (len(content) - 2 * 4096))
    with pytest.raises(DataError, match=r"the LMDB .*train_lmdb is damaged \(.*\): copy it again$"):
        Folder(8, str(folder), root=str(tmp_path / "root")).prepare()


def test_a_damaged_lmdb_is_told_when_a_picture_is_read(tmp_path):
    write(tmp_path / "a_lmdb", range(3))
    source = Lmdb(tmp_path / "a_lmdb", tmp_path)
    source.keys = Keys(np.ones((1, 1), np.uint8), np.zeros(1, np.uint16))
    with pytest.raises(DataError, match=r"^the LMDB is damaged \(.*BAD_VALSIZE.*\): copy it again"):
        source.read(0)


def test_keys_that_end_in_zeros_stay_whole(tmp_path):
    write_noise(tmp_path / "a_lmdb", [k.to_bytes(4, "little") for k in range(20)])
    write_noise(tmp_path / "b_lmdb", [k.to_bytes(1 + k % 4, "little") for k in range(20)])
    for name in ("a_lmdb", "b_lmdb"):
        dataset = Folder(8, str(tmp_path / name), root=str(tmp_path / "root"))
        dataset.prepare()
        assert len(dataset.split("train")) + len(dataset.split("test")) == 20


def test_fingerprints_tell_keys_apart_and_are_those_of_padded_keys(tmp_path):
    prints = set()
    for k, keys in enumerate(([b"a", b"bc"], [b"a\0", b"bc"])):
        write_noise(tmp_path / f"{k}", keys)
        prints.add(Lmdb(tmp_path / f"{k}", tmp_path / "root").fingerprint)
    assert len(prints) == 2
    assert hashlib.sha256(b"a\0bc").hexdigest()[:12] in prints
