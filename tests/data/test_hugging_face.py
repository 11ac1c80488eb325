"""Pictures that the `datasets` library reads: the same bytes as a folder of the same files gives."""

import io
import os
import shutil

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from ddpm.data import hugging_face
from ddpm.data.dataset import DataError
from ddpm.data.folder import Folder
from ddpm.data.hugging_face import HuggingFace

N, TEST = 12, 5
pytestmark = pytest.mark.filterwarnings("ignore:.*MonthDayNano")  # dill's, of Arrow's own classes


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The library's cache is this test's, and there is no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def pngs(n, seed):
    draw = np.random.default_rng(seed)
    encoded = []
    for _ in range(n):
        buffer = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (10, 8, 3), dtype=np.uint8)).save(buffer, "png")
        encoded.append(buffer.getvalue())
    return encoded


def table(n, seed, **columns):
    held = [{"bytes": each, "path": None} for each in pngs(n, seed)]
    return datasets.Dataset.from_dict({"picture": held, **columns}).cast_column("picture", datasets.Image())


@pytest.fixture
def parquet(tmp_path):
    """A folder as the Hub keeps one: data/train-*.parquet and data/validation-*.parquet, with names of classes."""
    classes = datasets.ClassLabel(names=["cat", "dog", "owl"])
    for split, n in (("train", N), ("validation", TEST)):
        rows = table(n, n, kind=[k % 3 for k in range(n)], note=["text"] * n).cast_column("kind", classes)
        (tmp_path / "there" / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(tmp_path / "there" / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "there"


def made(path, **how):
    dataset = HuggingFace(**{"size": 8, "channels": 3, "root": "root", **how}, path=str(path))
    dataset.prepare()
    return dataset


def values(dataset, split):
    examples = dataset.split(split)
    return examples.__getitems__(list(range(len(examples))))


def test_the_pictures_are_those_of_a_folder_with_the_same_files(parquet, tmp_path):
    for split, n in (("train", N), ("test", TEST)):
        (tmp_path / "files" / split).mkdir(parents=True)
        for k, each in enumerate(pngs(n, n)):
            (tmp_path / "files" / split / f"{k:02}.png").write_bytes(each)
    theirs = Folder(8, str(tmp_path / "files"), root="other")
    theirs.prepare()
    for array_gib in (8.0, 0.0):  # decoded once, or whenever asked for
        ours = made(parquet, array_gib=array_gib)
        for split in ("train", "test"):
            assert torch.equal(values(ours, split), values(theirs, split))
            assert ours.split(split).in_memory == (array_gib > 0)
    assert ours.split("train").labels.tolist() == [k % 3 for k in range(N)]
    assert ours.num_classes == 3
    assert ours.shape == (3, 8, 8)


def test_the_same_pictures_elsewhere_have_the_same_fingerprint(parquet, tmp_path):
    shutil.copytree(parquet, tmp_path / "copy")
    first = made(parquet).fingerprint
    assert made(tmp_path / "copy", root="another").fingerprint == first
    assert str(tmp_path) not in first
    assert f"{N}+{TEST}" in first
    datasets.load_dataset(str(parquet)).save_to_disk(tmp_path / "saved")
    assert made(tmp_path / "saved").fingerprint == first
    file = parquet / "data" / "train-00000-of-00001.parquet"
    table(N, seed=99).to_parquet(file)
    assert made(file, root="third").fingerprint.split()[-1].partition("+")[0] not in first


def test_one_file_is_held_out_from(parquet, tmp_path):
    file = parquet / "data" / "train-00000-of-00001.parquet"
    dataset = made(file, held_out=0.25)
    assert (len(dataset.split("train")), len(dataset.split("test"))) == (N - 3, 3)
    together = torch.cat([values(dataset, "train"), values(dataset, "test")])
    assert {row.numpy().tobytes() for row in together} == {
        row.numpy().tobytes() for row in values(made(parquet), "train")
    }
    assert (
        made(file, held_out=0.25, root="again").split("test").labels.tolist() == dataset.split("test").labels.tolist()
    )
    whole = made(parquet)
    pictures = [row.numpy().tobytes() for row in values(whole, "train")]
    of = dict(zip(pictures, whole.split("train").labels.tolist(), strict=True))
    for split in ("train", "test"):  # each picture keeps its own
        theirs = [of[row.numpy().tobytes()] for row in values(dataset, split)]
        assert dataset.split(split).labels.tolist() == theirs


def test_columns_and_splits_are_named(parquet):
    assert made(parquet, image_column="picture", label_column="kind").split("test").labels is not None
    assert len(made(parquet, train_split="validation", test_split="train").split("train")) == TEST


def test_what_is_trained_on_is_no_test_split(parquet):
    dataset = made(parquet, train_split="validation", held_out=0.4)
    assert (len(dataset.split("train")), len(dataset.split("test"))) == (TEST - 2, 2)


def test_of_several_columns_of_images_one_is_named(tmp_path):
    both = table(4, 1).add_column("other", [{"bytes": each, "path": None} for each in pngs(4, 2)])
    both.cast_column("other", datasets.Image()).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(DataError, match="no column of images, or several"):
        made(tmp_path / "two.parquet")
    first, second = (values(made(tmp_path / "two.parquet", image_column=c), "train") for c in ("picture", "other"))
    assert not torch.equal(first, second)


def test_classes_that_are_not_published_are_none(tmp_path):
    classes = datasets.ClassLabel(names=["cat", "dog"])
    (tmp_path / "there").mkdir()
    for split, kinds in (("train", [0, 1, 1, 0]), ("test", [-1] * 4)):
        table(4, 1, kind=kinds).cast_column("kind", classes).to_parquet(tmp_path / "there" / f"{split}.parquet")
    dataset = made(tmp_path / "there")
    assert dataset.split("train").labels.tolist() == [0, 1, 1, 0]
    assert dataset.split("test").labels is None


def test_a_fingerprint_is_of_the_content_of_some_and_the_size_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(hugging_face, "SAMPLED", 2)  # of four, the first and the third

    def bitmap(level):  # of the same size, whatever it shows
        Image.new("RGB", (8, 8), level).save(buffer := io.BytesIO(), "bmp")
        return buffer.getvalue()

    def fingerprint(name, *levels, more=b""):
        pictures = [bitmap(level) for level in levels]
        pictures[1] += more
        written(tmp_path / name / "train.parquet", [(each, None) for each in pictures])
        written(tmp_path / name / "test.parquet", [(bitmap("red"), None)])
        return HuggingFace(8, str(tmp_path / name), image_column="image").sources["train"].fingerprint

    first = fingerprint("a", "red", "green", "blue", "white")
    assert fingerprint("b", "red", "green", "blue", "white") == first
    assert fingerprint("c", "red", "green", "gray", "white") != first
    assert fingerprint("d", "red", "green", "blue", "white", more=b"\0") != first


def test_a_file_that_is_named_and_has_changed_is_noticed(tmp_path):
    (tmp_path / "mine").mkdir()
    for k, each in enumerate(pngs(4, 1)):
        (tmp_path / "mine" / f"{k}.png").write_bytes(each)

    def noticed():
        rows = HuggingFace(8, str(tmp_path / "mine")).sources["train"]
        return rows.state, rows.fingerprint

    before = noticed()
    assert noticed() == before
    for file in (tmp_path / "mine").iterdir():
        os.utime(file, ns=(1, 1))
    touched = noticed()
    assert touched[0] != before[0]  # what was decoded is decoded anew
    assert touched[1] == before[1]  # and is the same data
    for file in (tmp_path / "mine").iterdir():
        file.write_bytes(file.read_bytes() + b"\0")
    assert noticed()[1] != before[1]


@pytest.mark.parametrize(("path", "revision"), [("owner/name", "v2"), ("owner/name", None)])
def test_the_revision_is_the_one_that_is_asked_for(path, revision, monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *what, **how: asked.append((what, how)) or {"train": []})
    HuggingFace(8, path, revision=revision)._load()
    assert asked == [((path, None), {"revision": revision})]


def test_pictures_may_be_plain_bytes_and_a_column_of_them_named(tmp_path):
    datasets.Dataset.from_dict({"a": pngs(4, 1), "b": pngs(4, 2)}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(DataError, match=r"no column of images, .*with data.image_column=, one of a, b"):
        made(tmp_path / "plain.parquet")
    assert len(values(made(tmp_path / "plain.parquet", image_column="b"), "train")) == 3


def written(path, pictures):
    """A parquet file as a stranger writes it: rows of (bytes, path)."""
    rows = [{"bytes": held, "path": named} for held, named in pictures]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array(rows, kind)}), path)


def test_files_that_a_folder_of_the_users_names_are_read_and_no_others(tmp_path):
    """A stranger's rows may refer to any file of this machine."""
    (tmp_path / "mine").mkdir()
    for k, each in enumerate(pngs(4, 1)):
        (tmp_path / "mine" / f"{k}.png").write_bytes(each)
    assert len(values(made(tmp_path / "mine"), "train")) == 3
    (tmp_path / "secret.png").write_bytes(pngs(1, 2)[0])
    for number, named in enumerate((tmp_path / "secret.png", tmp_path / "theirs" / ".." / "secret.png", "secret.png")):
        written(tmp_path / "theirs" / f"{number}.parquet", [(None, str(named)), *((each, None) for each in pngs(9, 3))])
        with pytest.raises(DataError, match="which is not part of the dataset"):
            made(tmp_path / "theirs" / f"{number}.parquet", image_column="image")
    with pytest.raises(DataError, match="which is not part of the dataset"):
        made(tmp_path / "theirs", image_column="image")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"image_column": "pictures"}, "data.image_column=pictures: the columns of .* are picture, kind, note"),
        ({"label_column": "note"}, "data.label_column=note does not hold whole numbers"),
        ({"image_column": "kind"}, "data.image_column=kind holds int64, not encoded pictures"),
        ({"train_split": "dev"}, "data.train_split=dev: .* has train, validation"),
        ({"test_split": "test"}, "data.test_split=test: .* has train, validation"),
        ({"subset": "large"}, "cannot be read: .*large"),
    ],
)
def test_what_is_not_there_is_one_line(parquet, how, message):
    with pytest.raises(DataError, match=message) as error:
        made(parquet, **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "data.path= is missing"),
        ("nowhere", "neither a local folder or file nor OWNER/NAME"),
        ("nobody/nothing", "data.path=nobody/nothing cannot be read: .*needs a network"),
        ("empty", "data.path=empty cannot be read"),
        ("text.parquet", "data.path=text.parquet cannot be read"),
    ],
)
def test_without_data_or_a_network_it_is_one_line(path, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DataError, match=message) as error:
        HuggingFace(8, path).prepare()
    assert "\n" not in str(error.value)


def test_a_picture_that_cannot_be_read_is_named_or_skipped(tmp_path):
    pictures = [(each, None) for each in [*pngs(5, 1), b"no picture", None]]
    written(tmp_path / "broken" / "train.parquet", pictures)
    written(tmp_path / "broken" / "test.parquet", pictures[:2])
    with pytest.raises(DataError, match="row 5: it is not a picture"):
        made(tmp_path / "broken", image_column="image")
    assert len(made(tmp_path / "broken", image_column="image", on_error="skip").split("train")) == 5


@pytest.mark.parametrize("empty", ["train", "test"])
def test_a_split_without_rows_is_said_to_be_one(empty, tmp_path):
    """Whether it was saved by the library or is a parquet file."""
    splits = {split: table(0 if split == empty else 3, 1) for split in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved cannot be read: .* \(a split without rows, or a damaged file"):
        made(tmp_path / "saved")
    (tmp_path / "files").mkdir()
    for split, rows in splits.items():
        rows.to_parquet(tmp_path / "files" / f"{split}.parquet")
    with pytest.raises(DataError, match=rf'files cannot be read: Instruction "{empty}" corresponds to no data'):
        made(tmp_path / "files")
