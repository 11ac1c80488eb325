import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from ddpm.metrics.by_class import ByClass, kernel_distance
from ddpm.metrics.features import Features
from ddpm.metrics.fid import frechet_distance
from ddpm.metrics.metric import Reference
from ddpm.metrics.statistics import FeatureStatistics

WIDTH = 3


def reference(pool, labels):
    return Reference("test", FeatureStatistics.of(pool), pool, labels=labels)


def measured(pool, labels, real, order=None):
    metric = ByClass()
    metric.begin(width=WIDTH)
    for part in torch.arange(len(pool)).split(17) if order is None else order:
        metric.update(Features(pool[part], None, labels[part]), part)
    return metric.compute(len(pool), real), metric


def features(n, seed, shift=0.0):
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_kernel_distance_is_that_of_torch_fidelity():
    x, y = features(40, 0), features(40, 1, shift=0.3)
    whole = {"kid_subsets": 1, "kid_subset_size": 40, "rng_seed": 0, "verbose": False}
    assert kernel_distance(x, y) == pytest.approx(kid_features_to_metric(x, y, **whole)[KEY_METRIC_KID_MEAN])
    assert kernel_distance(x, features(60, 2)) == pytest.approx(0, abs=0.2)


def test_each_class_is_held_against_its_own_and_the_mean_is_over_those_with_enough():
    """Class 0 moved, class 1 did not, class 2 has too few samples, class 3 too few real images."""
    labels = torch.tensor([0] * 30 + [1] * 40 + [2] * 19 + [3] * 25)
    their_labels = torch.tensor([3] * 19 + [2] * 25 + [1] * 50 + [0] * 20)
    pool, theirs = features(114, 0), features(114, 1)
    pool[:30] += 5
    shuffled = torch.randperm(114, generator=torch.Generator().manual_seed(2))
    pool, labels = pool[shuffled], labels[shuffled]
    order = [part.flip(0) for part in torch.arange(114).split(23)][::-1]
    found, metric = measured(pool, labels, reference(theirs, their_labels), order)
    expected = [
        frechet_distance(FeatureStatistics.of(pool[labels == k]), FeatureStatistics.of(theirs[their_labels == k]))
        for k in (0, 1)
    ]
    fid = found["fid_by_class"]
    assert expected[0] > 60 > 5 > expected[1]
    assert fid["value"] == pytest.approx(sum(expected) / 2)
    assert fid["std"] == pytest.approx((expected[0] - expected[1]) / 2**0.5)
    assert (fid["classes"], fid["worst_class"], fid["worst"]) == (2, 0, pytest.approx(expected[0]))
    kid = kernel_distance(pool[labels == 0], theirs[their_labels == 0])
    assert found["kid_by_class"]["worst"] == pytest.approx(kid)
    assert "over 2 classes" in metric.notes(found, {})[0]


def test_every_class_counts_the_last_too():
    labels = torch.arange(84) % 4
    found, _ = measured(features(84, 0), labels, reference(features(84, 1), labels))
    assert found["fid_by_class"]["classes"] == found["kid_by_class"]["classes"] == 4


def test_one_class_deviates_from_nothing():
    found, _ = measured(features(25, 0), torch.zeros(25).long(), reference(features(25, 1), torch.zeros(25).long()))
    assert (found["fid_by_class"]["classes"], found["fid_by_class"]["std"], found["kid_by_class"]["std"]) == (1, 0, 0)


def test_the_classes_that_have_no_images_are_not_counted():
    labels = torch.tensor([1, 5]).repeat(25)
    found, metric = measured(features(50, 0), labels, reference(features(50, 1), labels))
    assert found["fid_by_class"]["classes"] == found["kid_by_class"]["classes"] == 2
    assert "over 2 classes" in metric.notes(found, {})[0]


def test_where_no_class_has_enough_there_is_no_number_and_a_note():
    few = torch.arange(40) % 4
    found, metric = measured(features(40, 0), few, reference(features(40, 1), few))
    assert found == {}
    assert "no class has 20" in metric.notes(found, {})[0]
