"""A look at a folder finds what is in it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ddpm.data.dataset import DataError
from ddpm.data.folder import Folder
from ddpm.own_pictures import survey as module
from ddpm.own_pictures.survey import survey


def coloured(k, height=24, width=16):
    return np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)


def save(path, pixels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)


def look(path, **settings):
    return survey(Folder(size=8, path=str(path), root=str(path.parent / "root"), **settings))


def test_what_is_in_a_folder(tmp_path):
    folder = tmp_path / "mine"
    for k in range(16):
        save(folder / f"{k}.png", coloured(k))
    upright = Image.fromarray(coloured(20, 16, 24))
    exif = upright.getexif()
    exif[0x0112] = 6  # turned by a quarter
    upright.save(folder / "turned.jpg", exif=exif)
    gray = coloured(21, 40, 40)[..., :1] // 2
    save(folder / "gray.png", gray + np.array([0, 3, 0], np.uint8))  # tinted by a few levels, as a JPEG may be
    alpha = coloured(22)[..., :1]
    save(folder / "clear.png", np.concatenate([coloured(22), alpha], axis=2))
    save(folder / "opaque.png", np.concatenate([coloured(23), np.full_like(alpha, 255)], axis=2))
    shutil.copy(folder / "0.png", folder / "again.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:100])
    (folder / "notes.txt").write_text("no picture")

    found = look(folder)
    assert (found.name, found.train, found.test, found.looked_at) == ("mine", 20, 2, 22)
    assert (found.height, found.width) == (24, 16)
    assert (found.smallest, found.largest) == ((24, 16), (40, 40))
    assert found.agreeing == pytest.approx(20 / 21)
    assert (found.gray, found.transparent, found.copies) == (1, 1, 1)
    assert len(found.damaged) == 1
    assert "broken.png" in found.damaged[0]
    assert found.readable == 21
    assert not (tmp_path / "root").exists()  # nothing is written


def test_classes_and_copies_across_the_splits(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            for k in range(3):
                save(tmp_path / "mine" / split / name / f"{k}.png", coloured(k + (split == "test" and k)))
    found = look(tmp_path / "mine")
    assert (found.train, found.test, found.classes) == (6, 6, 2)
    assert (found.copies, found.crossing) == (12 - len({0, 1, 2, 4}), 2)  # 0 and 2 are in both splits


def test_of_many_pictures_some_are_read_from_all_over_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_READ", 10)
    for k in range(40):
        save(tmp_path / "mine" / f"{k:02d}.png", coloured(k, height=24 if k < 20 else 48))
    found = look(tmp_path / "mine")
    assert (found.train + found.test, found.looked_at) == (40, 10)
    assert (found.smallest[0], found.largest[0]) == (24, 48)


def test_one_picture_many_times_is_no_data(tmp_path):
    for k in range(5):
        save(tmp_path / "mine" / f"{k}.png", coloured(0))
    with pytest.raises(DataError, match="holds one picture, 5 times: add others"):
        look(tmp_path / "mine")


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "mine").mkdir()
    for k in range(5):
        (tmp_path / "mine" / f"{k}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"none of the 5 pictures can be read, the first of them .*: it is not a pict"):
        look(tmp_path / "mine")


def test_a_16_bit_picture_with_a_transparent_level(tmp_path):
    for k in range(8):
        levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000 + k
        Image.fromarray(levels).save(tmp_path / f"{k}.png", **({"transparency": k} if k < 3 else {}))
    seen = survey(Folder(8, str(tmp_path)))
    assert (seen.gray, seen.transparent, seen.damaged) == (8, 3, [])


def test_a_name_with_a_line_end_is_shown_on_one_line(tmp_path):
    for k in range(8):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "c\nd.png").write_text("no picture")
    assert survey(Folder(8, str(tmp_path))).damaged == [f"{tmp_path}/c\\nd.png: it is not a picture"]
