import pytest
import torch
from PIL import Image

from ddpm.data.conditioning import FromImage, Label, OfSamples, Unconditional, classes_of
from ddpm.data.dataset import DataError, InMemory
from ddpm.data.digits import Digits, load_digits_split
from ddpm.data.encoded import Files, Source
from ddpm.data.folder import Folder
from ddpm.data.given import Array, Given, Part
from ddpm.data.module import DataModule
from ddpm.data.pairs import partners
from ddpm.data.swiss_roll import SwissRoll


def test_a_batch_has_the_labels_of_its_examples():
    images, labels, *_ = load_digits_split()
    module = DataModule(Digits(), 20, seed=1, max_steps=3, conditioning=Label(10))
    module.setup()
    for batch, indices in zip(module.train_dataloader(), module._order(), strict=True):
        assert torch.equal(batch.values, images[indices])
        assert torch.equal(batch.condition.labels, labels[indices])
    seen = torch.cat([batch.condition.labels for _, batch in module.val_dataloader()])
    assert torch.equal(seen, load_digits_split()[3])
    module = DataModule(Digits(), 20, seed=1, max_steps=1)
    module.setup()
    assert [batch.condition for batch in module.train_dataloader()] == [None]


def test_samples_are_told_the_data_s_own_labels_again_and_again():
    labels = torch.tensor([0] * 7 + [1] * 3 + [2] * 2)
    images = Array(*[Part(torch.zeros(12, 2), labels)] * 2)
    told = OfSamples(Label(3), images, "train", seed=5)
    found = told(range(36)).labels
    rounds = found.reshape(3, 12)
    for one in rounds:
        assert one.bincount(minlength=3).tolist() == [7, 3, 2]
    assert not torch.equal(rounds[0], labels)  # else the first samples would be of one class
    assert not torch.equal(rounds[0], rounds[1])
    assert torch.equal(told([30, 3, 14]).labels, found[[30, 3, 14]])  # whichever chunk they are in
    assert not torch.equal(OfSamples(Label(3), images, "train", seed=6)(range(36)).labels, found)
    nowhere = Given("handed over", (2,), "nothing")  # whose examples cannot be asked for
    assert OfSamples(Unconditional(), nowhere, "train", seed=5)(range(36)) is None


def test_samples_are_told_what_is_of_the_split_that_was_asked_for():
    images = Array(*(Part(torch.zeros(n, 2), torch.full((n,), n % 3)) for n in (10, 5)))  # classes 1 and 2
    for split, label in (("train", 1), ("test", 2)):
        assert OfSamples(Label(3), images, split, seed=5)(range(12)).labels.tolist() == [label] * 12


def test_a_share_of_labels_is_dropped_if_nothing_is_said_and_no_image():
    """The default of Ho & Salimans 2022 for classifier-free guidance; super-resolution needs its image."""
    assert (Label(10).drop, FromImage().drop) == (0.1, 0.0)


def test_an_example_that_was_read_is_not_read_again():
    class Counting(InMemory):
        reads = 0

        def __getitems__(self, indices):
            self.reads += 1
            return super().__getitems__(indices)

    examples = Counting(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    batch = FromImage("gray").batch(examples, [2, 3])
    assert batch.condition.image.shape == (2, 1, 8, 8)
    assert examples.reads == 1


def test_pictures_of_training_show_every_class():
    assert Label(4).shown(Digits(), 8).labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_pictures_of_training_tell_the_first_held_out_images_and_begin_again():
    gray = FromImage("downsample", 2)
    told = gray.shown(Digits(), 300).image
    examples = Digits().split("test")
    assert len(examples) == 297
    torch.testing.assert_close(told[:3], gray.of(examples, [0, 1, 2]).image)
    assert not torch.equal(told[0], told[1])
    assert torch.equal(told[297:], told[:3])


@pytest.mark.parametrize("label", [-1, 4])
def test_a_class_that_there_is_not_is_not_wanted(label):
    assert Label(4).wanted([0, 3]).labels.tolist() == [0, 3]
    with pytest.raises(ValueError, match=rf"label={label}: the classes are 0\.\.3"):
        Label(4).wanted([0, label])


def test_classes_are_counted(tmp_path):
    assert classes_of(Digits()) == 10
    for k in range(30):
        (tmp_path / "abc"[k % 3]).mkdir(exist_ok=True)
        Image.new("L", (4, 4), k).save(tmp_path / "abc"[k % 3] / f"{k}.png")
    assert Folder(4, str(tmp_path)).num_classes == 3
    Image.new("L", (4, 4)).save(tmp_path / "alone.png")
    for images in (Folder(4, str(tmp_path), root=str(tmp_path / "root")), SwissRoll()):
        with pytest.raises(DataError, match="has no classes"):
            classes_of(images)
        with pytest.raises(DataError, match=r"the train split of .* has no classes"):
            Label(3).check(images)
    with pytest.raises(DataError, match=r"ids has labels up to 1000000000000: .* with K at most 1,000,000"):
        classes_of(Given("ids", (1, 8, 8), "", 10**12 + 1))


@pytest.mark.parametrize("faulty", ["train", "test"])
@pytest.mark.parametrize(("labels", "named"), [([0, 3], "label 3"), ([-1, 2], "label -1")])
def test_a_label_out_of_range_is_refused(labels, named, faulty):
    class Some(Digits):
        def split(self, name):
            return InMemory(torch.zeros(2, 1, 8, 8), torch.tensor(labels if name == faulty else [0, 2]))

    with pytest.raises(DataError, match=rf"the {faulty} split of .* {named}, and labels are 0\.\.2"):
        Label(3).check(Some())


def test_a_class_of_the_test_split_alone_is_told_of(capsys):
    class Some(Digits):
        def split(self, name):
            labels = {"train": [0, 1, 1], "test": [1, 2, 3]}[name]
            return InMemory(torch.zeros(3, 1, 8, 8), torch.tensor(labels))

    Label(4).check(Some())
    assert "the test split has examples of classes that the train split has not (2, 3)" in capsys.readouterr().err
    Label(10).check(Digits())
    assert capsys.readouterr().err == ""


def test_settings_out_of_range():
    with pytest.raises(ValueError, match=r"condition.classes=0"):
        Label(0)
    for drop in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"condition\.drop"):
            Label(10, drop)


def test_super_resolution_is_told_means_over_squares():
    """By hand, pixel by pixel."""
    values = torch.randint(0, 256, (2, 3, 8, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    told = FromImage("downsample", 4).of(InMemory(values), [1, 0]).image
    assert told.shape == (2, 3, 8, 12)
    for k, index in enumerate([1, 0]):
        for y, x in [(0, 0), (3, 3), (7, 11), (5, 6)]:
            square = values[index, 2, y // 4 * 4 : y // 4 * 4 + 4, x // 4 * 4 : x // 4 * 4 + 4].double()
            assert told[k, 2, y, x].item() == pytest.approx(square.mean().item() / 127.5 - 1, abs=1e-5)
    assert FromImage("downsample", 4).network_arguments((3, 8, 12)) == {"condition_channels": 3}


def test_colourisation_is_told_the_gray_image():
    values = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    told = FromImage("gray").of(InMemory(values), [0, 1]).image
    torch.testing.assert_close(told, (values.float().mean(1, keepdim=True)) / 127.5 - 1)
    assert FromImage("gray").network_arguments((3, 4, 4)) == {"condition_channels": 1}


def test_images_that_cannot_be_told():
    with pytest.raises(DataError, match="is gray already"):
        FromImage("gray").check(Digits())
    with pytest.raises(DataError, match="does not divide 8x8"):
        FromImage("downsample", 3).check(Digits())
    FromImage("downsample", 4).check(Digits())
    with pytest.raises(ValueError, match=r"condition\.source=blur"):
        FromImage("blur")
    with pytest.raises(ValueError, match=r"condition\.factor=1"):
        FromImage("downsample", 1)
    with pytest.raises(ValueError, match="was told no classes"):
        FromImage().wanted([0])


@pytest.mark.parametrize("paired", [("train",), ("test",), ()])
def test_both_splits_need_pairs(paired):
    class Some(Digits):
        def split(self, name):
            examples = InMemory(torch.zeros(2, 1, 8, 8))
            examples.partners = InMemory(torch.zeros(2, 1, 8, 8)) if name in paired else None
            return examples

    with pytest.raises(DataError, match=r"condition\.source=paired tells"):
        FromImage("paired").check(Some())


@pytest.fixture
def pairs(tmp_path):
    """Twenty pictures, one in a folder of its own, and their negatives under the same names with other endings."""
    for k in range(20):
        name = f"{k:02d}" if k else "deeper/00"
        for folder, ending, levels in (("photos", "png", k), ("sketches", "bmp", 255 - k)):
            file = tmp_path / folder / f"{name}.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (levels, levels // 2, 7)).save(file)
    return tmp_path


@pytest.mark.parametrize("array_gib", [8.0, 0.0])
def test_a_pair_is_told_the_picture_of_the_same_name(pairs, array_gib):
    images = Folder(
        4, str(pairs / "photos"), root=str(pairs / "root"), array_gib=array_gib,
        condition_path=str(pairs / "sketches"), held_out=0.2,
    )  # fmt: skip
    module = DataModule(images, 16, seed=1, max_steps=2, conditioning=FromImage("paired"))
    module.prepare_data()
    module.setup()
    batches = [*module.train_dataloader(), *(batch for _, batch in module.val_dataloader())]
    assert [len(batch.values) for batch in batches] == [16, 16, 4]
    for batch in batches:
        told = (batch.condition.image * 127.5 + 127.5).round()
        assert torch.equal(told[:, 0], 255 - batch.values[:, 0].float())
    few = OfSamples(FromImage("paired"), images, "test", seed=0)([3, 1])
    assert few.image.shape == (2, 3, 4, 4)
    alone = Folder(4, str(pairs / "photos"), root=str(pairs / "root"), held_out=0.2)
    assert alone.fingerprint != images.fingerprint
    with pytest.raises(DataError, match=r"add data=folder and data\.condition_path"):
        FromImage("paired").check(alone)


def test_partners_are_in_the_order_of_the_pictures(pairs):
    names = ["12.png", "deeper/00.png", "03.png"]
    found = partners(Files(pairs / "photos", names), pairs / "sketches", ["03.bmp", "12.bmp", "deeper/00.bmp"])
    assert list(found.names) == ["12.bmp", "deeper/00.bmp", "03.bmp"]


def test_what_is_no_folder_of_files_has_no_pairs(pairs):
    class Records(Source):
        def __len__(self):
            return 1

        def name(self, index):
            return "a record"

        def read(self, index):
            return b""

    with pytest.raises(DataError, match=r"data\.path must be a folder or an archive"):
        partners(Records(), pairs / "sketches", ["03.bmp"])


def test_pairs_that_do_not_match_are_refused(pairs):
    def paired(**how):
        return Folder(4, str(pairs / "photos"), root=str(pairs / "root"), **how).partners

    Image.new("RGB", (4, 4)).save(pairs / "sketches/07.png")
    with pytest.raises(DataError, match=r"07\.png has several partners \(07\.bmp, 07\.png\)"):
        paired(condition_path=str(pairs / "sketches"))
    for name in ("07.png", "07.bmp"):
        (pairs / "sketches" / name).unlink()
    with pytest.raises(DataError, match=r"07\.png has no partner"):
        paired(condition_path=str(pairs / "sketches"))
    with pytest.raises(DataError, match="there is nothing at"):
        paired(condition_path=str(pairs / "nowhere"))
    with pytest.raises(DataError, match="would part pairs"):
        paired(condition_path=str(pairs / "sketches"), on_error="skip")
