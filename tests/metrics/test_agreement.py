import pytest
import torch

from ddpm.metrics.agreement import Agreement
from ddpm.metrics.features import Features


def test_agreement_is_the_share_that_is_read_as_its_label():
    metric = Agreement()
    metric.begin(width=2)
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    for part in ([2, 3], [0, 1]):  # in any order
        labels = torch.tensor([1, 0, 0, 1])[part]
        metric.update(Features(torch.zeros(2, 2), logits[part], labels), torch.tensor(part))
    found = metric.compute(4)["agreement"]
    assert found["value"] == 0.75
    assert found["stderr"] == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_a_note_says_of_how_many_samples_and_of_how_many_real_images():
    ours, real = {"agreement": {"value": 0.5, "n": 1500}}, {"agreement": {"value": 0.9, "n": 297}}
    said = "agreement: the share of 1,500 samples that the classifier reads as their label"
    assert Agreement().notes(ours, {}) == [said]
    assert Agreement().notes(ours, real) == [f"{said}; of 297 real images of the train split"]
    assert Agreement().notes({"fid": {"n": 5}}, real) == []
    assert Agreement().fewest == 1
