import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data.archive import unpacked
from ddpm.data.dataset import DataError


def png(level: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:" + path.suffix.removeprefix(".").replace("tar", "").replace("tgz", "gz")) as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz", ".xz"])
def test_pictures_are_unpacked_once(tmp_path, suffix):
    members = {"faces/a.png": png(), "faces/ü/b.JPG": png(), "faces/notes.txt": b"", "__MACOSX/faces/._a.png": b""}
    archive = pack(tmp_path / f"faces{suffix}", members)
    folder = unpacked(archive, tmp_path / "root")
    assert inside(folder) == {"a.png", "ü/b.JPG"}
    (folder / "mark").touch()
    assert inside(unpacked(archive, tmp_path / "root")) == {"a.png", "ü/b.JPG", "mark"}  # as it was left


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/tmp/a.png", "../../notes.txt"])
def test_a_member_that_climbs_out(tmp_path, suffix, name):
    archive = pack(tmp_path / f"evil{suffix}", {"fine.png": png(), name: png()})
    with pytest.raises(DataError, match="outside of the folder") as error:
        unpacked(archive, tmp_path / "root")
    assert str(archive) in str(error.value)
    assert [file for file in inside(tmp_path) if not file.endswith(".lock")] == [archive.name]


def test_links_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        info = tarfile.TarInfo("b.png")
        info.size = len(png())
        tar.addfile(info, io.BytesIO(png()))
    assert inside(unpacked(tmp_path / "links.tar", tmp_path / "root")) == {"b.png"}


@pytest.mark.parametrize("suffix", [".zip", ".tgz", ".xz"])
def test_an_archive_cut_in_half(tmp_path, suffix):
    random = np.random.default_rng(0)
    archive = pack(tmp_path / f"faces{suffix}", {f"{k}.png": random.bytes(50_000) for k in range(4)})
    archive.write_bytes(archive.read_bytes()[:70_000])
    with pytest.raises(DataError, match=r"faces\.") as error:
        unpacked(archive, tmp_path / "root")
    assert str(archive) in str(error.value)
    assert {file for file in inside(tmp_path) if not file.endswith(".lock")} == {archive.name}


def test_no_archive(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(DataError, match="neither a folder nor a zip or tar archive"):
        unpacked(tmp_path / "a.png", tmp_path / "root")
    assert inside(tmp_path) == {"a.png"}  # nor is anything begun


def test_a_member_without_a_name(tmp_path):
    """Found by fuzzing: zipfile asks for the last letter of the name."""
    with zipfile.ZipFile(tmp_path / "nameless.zip", "w") as archive:
        archive.writestr("x", png())
    content = bytearray((tmp_path / "nameless.zip").read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 28 : entry + 30] = b"\0\0"  # the length of the name in the directory
    del content[entry + 46]
    end = content.rindex(b"PK\x05\x06")
    content[end + 12] -= 1  # the size of the directory
    (tmp_path / "nameless.zip").write_bytes(content)
    with pytest.raises(DataError, match="cannot unpack"):
        unpacked(tmp_path / "nameless.zip", tmp_path / "root")


@pytest.mark.parametrize("suffix", [".zip", ".tgz"])
def test_what_unpacks_without_end_is_refused(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("ddpm.data.archive.LEAST", 1 << 20)
    if suffix == ".zip":
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", bytes(20 << 20))
    else:
        pack(tmp_path / "bomb.tgz", {"a.png": bytes(20 << 20)})
    with pytest.raises(DataError, match="it holds more than"):
        unpacked(tmp_path / f"bomb{suffix}", tmp_path / "root")
    assert not [file for file in inside(tmp_path / "root") if file.endswith(".png")]


def test_what_unpacks_to_some_times_its_size_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.data.archive.LEAST", 1 << 10)
    content = 4 * np.random.default_rng(0).bytes(20_000)
    with zipfile.ZipFile(tmp_path / "twice.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", content)
    assert (tmp_path / "twice.zip").stat().st_size < len(content) / 3
    assert (unpacked(tmp_path / "twice.zip", tmp_path / "root") / "a.png").read_bytes() == content


def test_an_archive_that_was_packed_anew_is_unpacked_anew(tmp_path):
    archive = pack(tmp_path / "faces.tar", {"a.png": png(1)})
    size, stamp = archive.stat().st_size, archive.stat().st_mtime_ns
    assert (unpacked(archive, tmp_path / "root") / "a.png").read_bytes() == png(1)
    pack(archive, {"a.png": png(2)})
    os.utime(archive, ns=(stamp + 1, stamp + 1))
    assert archive.stat().st_size == size
    assert (unpacked(archive, tmp_path / "root") / "a.png").read_bytes() == png(2)
