import subprocess
import sys

import pytest
import torch

from ddpm.data.digits import Digits, load_digits_split


def test_the_split_is_fixed_balanced_and_disjoint():
    train, train_labels, test, test_labels = load_digits_split()
    assert train.sum().item() == 7_475_651
    assert test.sum().item() == 1_478_150
    shares = torch.bincount(train_labels) / 1500 - torch.bincount(test_labels) / 297
    assert shares.abs().max() < 0.003
    seen = {image.numpy().tobytes() for image in train}
    assert sum(image.numpy().tobytes() in seen for image in test) == 0


def test_17_gray_levels():
    levels = load_digits_split()[0].unique().tolist()
    assert levels == [round(v * 255 / 16) for v in range(17)]


def test_dataset():
    digits = Digits()
    digits.prepare()
    train = digits.split("train")
    assert (len(train), len(digits.split("test")), digits.shape) == (1500, 297, (1, 8, 8))
    assert train.labels is not None
    images, labels, test_images, test_labels = load_digits_split()
    assert torch.equal(train.__getitems__([3, 1]), images[[3, 1]])
    assert torch.equal(train[3], images[3])
    assert torch.equal(train.labels, labels)
    test = digits.split("test")
    assert torch.equal(test.__getitems__([5, 2]), test_images[[5, 2]])
    assert torch.equal(test.labels, test_labels)


@pytest.mark.long
def test_the_import_is_cheap():
    code = "import sys, ddpm.data.digits; print({'sklearn', 'lightning', 'PIL', 'torchvision'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
