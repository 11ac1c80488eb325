import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data import cache, encoded
from ddpm.data.dataset import DataError
from ddpm.data.encoded import Encoded
from ddpm.data.folder import Folder, hold_out


def write(path: Path, level: int, size: tuple[int, int] = (8, 8), **how) -> None:
    """A gray picture, no two rows of it alike: its mean `level` is what tells it from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slope = np.arange(size[0]) - (size[0] - 1) // 2  # from -3 to 4 for 8 rows
    rows = level + slope - (slope > 0) * (size[0] % 2 == 0)
    Image.fromarray(np.broadcast_to(rows[:, None].clip(0, 255), size).astype(np.uint8)).save(path, **how)


@pytest.fixture
def pictures(tmp_path):
    """20 pictures in three classes, their levels 10, 11, ..., beside what is no picture."""
    folder = tmp_path / "pictures"
    for k in range(20):
        write(folder / ("cat", "dog/small", "hühner & co, 3=drei")[k % 3] / f"{k}.png", 10 + k)
    (folder / "cat" / "notes.txt").write_text("about cats")
    (folder / "cat" / ".hidden.png").write_text("")
    return folder


def make(folder: Path, **how) -> Folder:
    dataset = Folder(**{"size": 8, "channels": 1, "root": str(folder.parent / "root"), **how}, path=str(folder))
    dataset.prepare()
    return dataset


def levels(dataset: Folder, split: str) -> list[int]:
    examples = dataset.split(split)
    return examples.__getitems__(list(range(len(examples)))).float().mean((1, 2, 3)).round().int().tolist()


@pytest.mark.parametrize("array_gib", [1.0, 0.0])
def test_a_share_is_held_out(pictures, array_gib):
    dataset = make(pictures, array_gib=array_gib, held_out=0.2)
    train, test = levels(dataset, "train"), levels(dataset, "test")
    assert (len(train), len(test)) == (16, 4)
    assert sorted(train + test) == list(range(10, 30))
    assert dataset.split("train").in_memory == (array_gib > 0)


def test_the_held_out_are_those_of_the_smallest_hashes_and_their_number_is_rounded():
    names = [b"%02d" % k for k in range(15)]
    chosen, rest = hold_out(names, 0.1, Path("here"))  # 1.5 of them
    assert len(chosen) == 2
    assert sorted(chosen + rest) == list(range(15))
    largest = max(hashlib.sha256(names[k]).digest() for k in chosen)
    assert all(hashlib.sha256(names[k]).digest() > largest for k in rest)
    assert chosen != [0, 1]


@pytest.mark.parametrize(("bytes_beside", "in_memory"), [(0, True), (-1, False)])
def test_a_split_is_kept_as_an_array_where_all_of_it_fits(pictures, bytes_beside, in_memory):
    """18 pictures of 64 bytes train."""
    dataset = make(pictures, array_gib=(18 * 64 + bytes_beside) / 2**30)
    assert len(dataset.split("train")) == 18
    assert dataset.split("train").in_memory == in_memory


def test_pictures_are_decoded_by_the_block_each_once(pictures, monkeypatch):
    blocks, append = [], cache.Writer.append

    def watched(writer, name, values):
        blocks.extend([len(values)] * (name == "pixels"))
        append(writer, name, values)

    monkeypatch.setattr(encoded, "BLOCK_BYTES", 5 * 64 + 10)
    monkeypatch.setattr(cache.Writer, "append", watched)
    dataset = make(pictures)
    assert blocks == [5, 5, 5, 3, 2]  # 18 to train on, 2 to test on
    assert sorted(levels(dataset, "train") + levels(dataset, "test")) == list(range(10, 30))


def test_the_fingerprint_tells_names_and_sizes_and_not_when_a_file_was_written(pictures):
    name, before = pictures / "cat/0.png", make(pictures).fingerprint
    os.utime(name, ns=(1, 1))
    assert make(pictures).fingerprint == before
    assert make(pictures).state != before
    name.write_bytes(name.read_bytes() + b"\0")
    assert make(pictures).fingerprint != before


def test_only_the_uppermost_folder_called_test_is_the_test_split(tmp_path):
    for k, name in enumerate(("test/a", "test/b", "train/c", "train/test/d", "latest/e")):
        write(tmp_path / "pictures" / f"{name}.png", 20 + k)
    dataset = make(tmp_path / "pictures")
    assert (levels(dataset, "test"), sorted(levels(dataset, "train"))) == ([20, 21], [22, 23, 24])


@pytest.mark.parametrize("array_gib", [1.0, 0.0])
def test_sub_folders_are_classes(pictures, array_gib):
    dataset = make(pictures, array_gib=array_gib)
    for split in ("train", "test"):
        labels = dataset.split(split).labels
        assert labels is not None
        assert labels.tolist() == [(level - 10) % 3 for level in levels(dataset, split)]


def test_no_classes_if_a_picture_is_in_none(pictures):
    write(pictures / "alone.png", 99)
    assert make(pictures).split("train").labels is None


@pytest.mark.parametrize(
    ("folders", "train", "test", "classes"),
    [
        (("train", "val"), [10, 11], [20, 21], 2),
        (("Train", "Validation"), [10, 11], [20, 21], 2),
        (("train", "test", "val"), [10, 11], [20, 21], 2),
        (("train", "TEST", "valid"), [10, 11], [20, 21], 2),
        (("train", "validation", "val"), [10, 11], [20, 21], 2),
        (("train", "val", "more"), None, None, 3),  # a railway train, perhaps
        (("train", "car"), None, None, 2),
        (
            ("valid", "test"),
            [10, 11],
            [20, 21],
            3,
        ),  # a class beside a test split, in which cats and dogs are two others
    ],
)
def test_names_of_splits(tmp_path, capsys, folders, train, test, classes):
    for k, folder in enumerate(folders):
        for label, kind in enumerate(("cat", "dog")):
            write(tmp_path / "pictures" / folder / kind / "a.png", 10 * (k + 1) + label)
    dataset = make(tmp_path / "pictures", held_out=0.3)
    dataset.prepare()
    if train:
        assert (levels(dataset, "train"), levels(dataset, "test")) == (train, test)
    else:
        assert len(levels(dataset, "train") + levels(dataset, "test")) == 2 * len(folders)
        assert levels(dataset, "test") != [20, 21]
    assert dataset.num_classes == classes
    assert dataset.unused == list(folders[2:] if train else [])
    said = capsys.readouterr().err
    for folder in dataset.unused:
        assert f"the pictures in {tmp_path / 'pictures' / folder} are in neither split" in said


def test_a_test_folder(pictures):
    for k in range(3):
        write(pictures.parent / "both" / "test" / "dog" / f"{k}.png", 100 + k)
    pictures.rename(pictures.parent / "both" / "train")
    dataset = make(pictures.parent / "both")
    assert levels(dataset, "test") == [100, 101, 102]
    assert sorted(levels(dataset, "train")) == list(range(10, 30))
    labels = dataset.split("test").labels
    assert labels is not None
    assert labels.tolist() == [1, 1, 1]


def test_a_new_picture_moves_hardly_any_other(pictures):
    before = set(levels(make(pictures, held_out=0.3), "test"))
    write(pictures / "cat" / "new.png", 200)
    after = set(levels(make(pictures, held_out=0.3), "test"))
    assert len(before ^ after) <= 2


def test_any_size_and_shape(pictures):
    write(pictures / "cat" / "thin.webp", 200, size=(1, 300))
    assert make(pictures, size=[16, 32], channels=3).split("train")[0].shape == (3, 16, 32)
    assert Folder(size=[16, 32]).shape == (3, 16, 32)  # before any picture is read


def test_links_to_folders_are_followed_once(pictures):
    os.symlink(pictures / "cat", pictures.parent / "elsewhere")
    os.symlink(pictures, pictures / "cat" / "loop")
    dataset = make(pictures)
    assert len(dataset.split("train")) + len(dataset.split("test")) == 20


def test_the_cache_is_used_and_renewed(pictures, monkeypatch):
    name = Path(make(pictures).sources["train"].name(0))
    name.write_bytes(name.read_bytes().ljust(1000, b"\0"))
    dataset = make(pictures)
    before = levels(dataset, "train")
    with monkeypatch.context() as patch:
        patch.setattr("ddpm.data.encoded.load", None)  # nothing is decoded again
        assert levels(make(pictures), "train") == before
    stamp = name.stat().st_mtime_ns
    write(name, 250)
    name.write_bytes(name.read_bytes().ljust(1000, b"\0"))
    os.utime(name, ns=(stamp + 1, stamp + 1))  # a file of another content and of the same size
    assert levels(make(pictures), "train") == [250, *before[1:]]
    assert levels(make(pictures, size=4), "train") == [250, *before[1:]]


@pytest.mark.parametrize("array_gib", [1.0, 0.0])
def test_every_way_to_read_a_picture_has_a_cache_of_its_own(pictures, array_gib):
    """One after the other in the same root: nobody is served what another has left."""
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(pictures / "cat" / "clear.png")  # shows what it is laid over
    ways = [{}, {"size": 4}, {"size": [4, 8]}, {"channels": 3}, {"background": 0}, {"on_error": "skip"}]
    for how in [*ways, *ways]:
        dataset = make(pictures, array_gib=array_gib, **how)
        (place, split), *_ = [
            (index, split)
            for split in ("train", "test")
            for index in range(len(dataset.sources[split]))
            if dataset.sources[split].name(index).endswith("clear.png")
        ]
        shown = dataset.split(split)[place]
        assert shown.shape == Folder(**{"size": 8, "channels": 1, **how}).shape
        assert shown.unique().tolist() == [how.get("background", 255)]


@pytest.mark.parametrize("array_gib", [1.0, 0.0])
def test_what_was_skipped_once_is_still_refused_where_nothing_may_be_left_out(broken, array_gib):
    make(broken, on_error="skip", array_gib=array_gib)
    with pytest.raises(DataError, match="cannot read"):
        [levels(make(broken, array_gib=array_gib), split) for split in ("train", "test")]
    assert len(levels(make(broken, on_error="skip", array_gib=array_gib), "train")) > 15


def test_an_array_and_the_places_of_what_can_be_read_are_kept_apart(broken):
    for array_gib in (0.0, 1.0, 0.0):
        dataset = make(broken, on_error="skip", array_gib=array_gib)
        assert sorted(levels(dataset, "train") + levels(dataset, "test")) == list(range(10, 30))


def test_a_cache_that_does_not_match(pictures):
    make(pictures)
    (victim,) = (pictures.parent / "root" / "cache").glob("folder-train-*/pixels.raw")
    victim.write_bytes(victim.read_bytes()[:-64])
    with pytest.raises(DataError, match=f"the cache {victim.parent} cannot be used"):
        make(pictures)


@pytest.fixture
def broken(pictures):
    """The same with an empty, a cut and a false picture among them."""
    (pictures / "cat" / "empty.png").write_bytes(b"")
    (pictures / "cat" / "false.jpg").write_text("<html>")
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(file, "PNG")
    (pictures / "dog" / "cut.png").write_bytes(file.getvalue()[:2000])
    return pictures


def test_a_broken_picture_is_named(broken):
    with pytest.raises(DataError, match=r"cannot read .*data.on_error=skip") as error:
        make(broken)
    assert any(name in str(error.value) for name in ("empty.png: it is empty", "false.jpg: it is not a pic", "cut.png"))
    assert not list((broken.parent / "root" / "cache").glob("folder-*"))


def test_a_broken_picture_is_named_when_it_comes_up(broken):
    dataset = make(broken, array_gib=0.0)
    with pytest.raises(DataError, match="cannot read"):
        levels(dataset, "train"), levels(dataset, "test")


@pytest.mark.parametrize("array_gib", [1.0, 0.0])
def test_broken_pictures_are_skipped_counted_and_listed(broken, array_gib, capsys):
    for _ in range(2):  # decoded, and from the cache
        capsys.readouterr()
        dataset = make(broken, on_error="skip", array_gib=array_gib)
        said = re.findall(r"left out (\d+) of \d+ pictures.*listed in (.*)", capsys.readouterr().err)
        assert sorted(levels(dataset, "train") + levels(dataset, "test")) == list(range(10, 30))
        listed = [line for _, file in said for line in Path(file).read_text().splitlines()]
        assert sum(int(count) for count, _ in said) == len(listed) == 3
        assert {Path(line.split(": ")[0]).name for line in listed} == {"empty.png", "false.jpg", "cut.png"}
    labels = dataset.split("train").labels
    assert labels is not None
    assert labels.tolist() == [(level - 10) % 3 for level in levels(dataset, "train")]
    assert "less those skipped" in dataset.fingerprint


def test_nothing_that_can_be_read(tmp_path):
    for k in range(3):
        (tmp_path / "pictures" / f"{k}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{k}.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the"):
        make(tmp_path / "pictures", on_error="skip")


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=rf"nothing at {tmp_path}/gone: .* data.path=FOLDER"):
        make(tmp_path / "gone")


def test_no_pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "notes.txt").write_text("")
    with pytest.raises(DataError, match=rf"no pictures in {tmp_path}/pictures"):
        make(tmp_path / "pictures")


def test_a_folder_that_cannot_be_listed(pictures, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("small"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"cannot list .*small: Permission denied"):
        make(pictures)


def test_one_picture(tmp_path):
    write(tmp_path / "pictures" / "a.png", 0)
    with pytest.raises(DataError, match="has 1 pictures, too few to hold out"):
        make(tmp_path / "pictures")


@pytest.mark.parametrize("only", ["test", "train"])
def test_a_split_without_pictures(tmp_path, only):
    (tmp_path / "pictures" / "test").mkdir(parents=True)
    write(tmp_path / "pictures" / only / "a.png", 0)
    with pytest.raises(DataError, match="both splits need some"):
        make(tmp_path / "pictures")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"size": 0}, r"data.size=\[0, 0\]: it must be"),
        ({"size": [8, 100_000]}, r"data.size=\[8, 100000\]: it must be .* from 1 to 8,192"),
        ({"size": [8, 8, 3]}, r"data.size=\[8, 8, 3\]: .* 1 or 2 whole numbers"),
        ({"channels": 4}, "data.channels=4: it must be 1 or 3"),
        ({"held_out": 1.5}, "data.held_out=1.5: it must be between 0 and 1"),
        ({"background": 256}, "data.background=256"),
        ({"on_error": "ignore"}, "data.on_error=ignore: it must be raise or skip"),
    ],
)
def test_arguments_that_cannot_be(how, message):
    with pytest.raises(DataError, match=message):
        Folder(**{"size": 8, **how})


def test_the_fingerprint_is_of_the_pictures_and_not_of_the_place(pictures, tmp_path):
    first = make(pictures)
    pictures.rename(tmp_path / "moved")
    moved, resized = make(tmp_path / "moved"), make(tmp_path / "moved", size=4)
    assert first.fingerprint == moved.fingerprint
    assert first.fingerprint.startswith("folder 18+2 1x8x8, centre crop, lanczos, over #ffffff ")
    assert resized.fingerprint != first.fingerprint
    write(tmp_path / "moved" / "cat" / "new.png", 200)
    assert make(tmp_path / "moved").fingerprint != first.fingerprint


def test_an_archive_is_as_good_as_a_folder(pictures):
    import shutil

    archive = shutil.make_archive(str(pictures.parent / "packed"), "zip", pictures)
    packed, folder = make(Path(archive)), make(pictures)
    assert levels(packed, "train") == levels(folder, "train")
    assert packed.fingerprint == folder.fingerprint


def test_decoding_on_the_fly_gives_the_same_pixels(pictures):
    array, stream = make(pictures, size=5).split("train"), make(pictures, size=5, array_gib=0.0).split("train")
    assert isinstance(stream, Encoded)
    everything = list(range(len(array)))
    assert torch.equal(array.__getitems__(everything), stream.__getitems__(everything))


def test_links_to_nothing_are_pictures_that_cannot_be_read(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(8):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(folder / f"{k}.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"cannot read .*gone\.png: No such file.*data\.on_error=skip"):
        make(folder)
    dataset = make(folder, on_error="skip", held_out=0.4)
    assert len(dataset.split("train")) + len(dataset.split("test")) == 8
    assert "1 of" in capsys.readouterr().err


def test_pipes_and_devices_are_not_read(tmp_path):
    """Reading the first would wait for ever, and reading the second would fill the memory."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(8):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(folder / f"{k}.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"cannot read .*pipe\.png: it is a device or a pipe"):
        make(folder)
    dataset = make(folder, on_error="skip", held_out=0.4)
    assert len(dataset.split("train")) + len(dataset.split("test")) == 8


def test_names_need_not_be_utf_8(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(6):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(os.fsencode(folder) + b"/%d\xff\xfe.png" % k)
    (folder / os.fsdecode(b"\xffbroken.png")).write_bytes(b"no picture")
    dataset = make(folder, on_error="skip", held_out=0.4)
    assert len(dataset.split("train")) + len(dataset.split("test")) == 6
    with pytest.raises(DataError, match="broken"):
        make(folder, held_out=0.4)


@pytest.mark.parametrize(("name", "shown"), [("c\nd", r"c\nd"), ("e\x1b[2J", r"e\x1b[2J"), ("f\u2028g", r"f\u2028g")])
def test_control_characters_of_a_name_are_shown(pictures, name, shown, capsys):
    (pictures / f"{name}.png").write_text("no picture")
    with pytest.raises(DataError) as error:
        make(pictures)
    assert str(error.value).startswith(f"cannot read {pictures}/{shown}.png: it is not a picture; repair")
    capsys.readouterr()
    make(pictures, on_error="skip")
    listed = re.findall("listed in (.*)", capsys.readouterr().err)
    assert Path(*listed).read_text() == f"{pictures}/{shown}.png: it is not a picture\n"


def test_what_is_left_out_is_said_once(broken, capsys):
    dataset = make(broken, on_error="skip")
    assert "left out" in capsys.readouterr().err
    dataset.prepare()
    assert capsys.readouterr().err == ""
