import itertools
import json
import math
import multiprocessing
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_in_processes import metrics_over, process, some_features
from torch import nn

from ddpm.metrics.features import TorchFidelity
from ddpm.metrics.statistics import (
    FeatureMoments,
    FeatureStatistics,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
    frechet_distance,
)

PROTOCOL = {"extractor": "digits", "split": "test", "count": 297}


def spd(d, seed):
    root = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)


# --- FID --------------------------------------------------------------------------------------------------------------


def test_distance_of_gaussians_in_closed_form():
    """y = A x + c with A symmetric and positive is the optimal transport: the distance is E |y - x|^2."""
    a, cov, mean = spd(5, 0), spd(5, 1), torch.arange(5.0, dtype=torch.float64)
    shift = torch.full((5,), 0.5, dtype=torch.float64)
    here, there = FeatureStatistics(9, mean, cov), FeatureStatistics(9, mean + shift, a @ cov @ a)
    away = torch.eye(5, dtype=torch.float64) - a
    expected = shift.square().sum() + (away @ cov @ away).trace()
    assert math.isclose(frechet_distance(here, there), expected, rel_tol=1e-12)
    assert math.isclose(frechet_distance(there, here), expected, rel_tol=1e-12)
    assert abs(frechet_distance(here, here)) < 1e-12


def test_distance_with_fewer_images_than_features():
    """Of singular covariances the trace of the root is the nuclear norm of the product of the centred features."""
    x, y = some_features(7, 40).double(), some_features(9, 40, seed=1).double() + 0.3
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(y)
    root = torch.linalg.svdvals((x - x.mean(0)) @ (y - y.mean(0)).T).sum() / math.sqrt(6 * 8)
    expected = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * root
    assert math.isclose(frechet_distance(a, b), expected, rel_tol=1e-6)
    assert abs(frechet_distance(a, a)) < 1e-4


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 50), max_size=6).map(sorted))
def test_moments_do_not_depend_on_the_batches(cuts):
    x = some_features(50) + 100
    moments = FeatureMoments(6)
    for start, end in itertools.pairwise([0, *cuts, 50]):
        moments.update(x[start:end])
    found = moments.compute()
    assert found.count == 50
    torch.testing.assert_close(found.mean, x.double().mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.cov, x.double().T.cov(), rtol=1e-9, atol=1e-9)


def test_moments_hold_no_more_after_more_images():
    moments = FeatureMoments(6)
    sizes = []
    for seed in range(3):
        moments.update(some_features(100, seed=seed))
        sizes.append(sum(state.numel() for state in moments.metric_state.values()))
    assert sizes == [1 + 6 + 36] * 3


def test_fid_refuses_what_has_none():
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        FeatureStatistics.of(some_features(1))
    with pytest.raises(ValueError, match="not finite"):
        FeatureStatistics.of(some_features(5) / 0)
    with pytest.raises(ValueError, match="of 6 and of 5 features"):
        frechet_distance(FeatureStatistics.of(some_features(9)), FeatureStatistics.of(some_features(9, 5)))


def test_statistics_are_kept_with_their_protocol(tmp_path):
    path = tmp_path / "test split, 297.safetensors"
    written = FeatureStatistics.of(some_features(9))
    written.save(path, PROTOCOL)
    read = FeatureStatistics.load(path, PROTOCOL)
    assert list(tmp_path.iterdir()) == [path]
    assert read.count == 9
    assert torch.equal(read.mean, written.mean)
    assert torch.equal(read.cov, written.cov)
    with pytest.raises(ValueError, match="another protocol: split is 'test', not 'train'"):
        FeatureStatistics.load(path, PROTOCOL | {"split": "train"})
    with pytest.raises(ValueError, match="another protocol: count is 297, not None"):
        FeatureStatistics.load(path, {"extractor": "digits", "split": "test"})


@pytest.mark.parametrize("content", [None, b"", b"mean and covariance"])
def test_what_is_no_file_of_statistics(tmp_path, content):
    path = tmp_path / "statistics.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a file of feature statistics"):
        FeatureStatistics.load(path, PROTOCOL)


# --- IS, KID, precision and recall ------------------------------------------------------------------------------------


def gathering_metrics():
    reference = some_features(80, seed=1) + 0.2
    return InceptionScore(), KernelDistance(reference, subsets=5, subset_size=40), PrecisionRecall(reference)


@pytest.mark.parametrize("which", range(3), ids=["IS", "KID", "precision and recall"])
def test_neither_order_nor_batches_nor_random_state_matter(which):
    x, index = some_features(101), torch.arange(101)
    once, shuffled = gathering_metrics()[which], gathering_metrics()[which]
    once.update(x, index)
    for part in torch.randperm(101).split(13):
        shuffled.update(x[part], index[part])
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    value = once.compute()
    assert value == shuffled.compute()
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_score_of_certain_and_of_uncertain_classifications():
    """Ten classes, each image surely in one, as many of each: exp(log 10). No information: exp(0)."""
    certain, uncertain = InceptionScore(splits=1), InceptionScore(splits=1)
    certain.update(100 * torch.eye(10).repeat(20, 1), torch.arange(200))
    uncertain.update(torch.ones(200, 10), torch.arange(200))
    assert math.isclose(certain.compute().value, 10, rel_tol=1e-6)
    assert math.isclose(uncertain.compute().value, 1, rel_tol=1e-6)


def test_kernel_distance_of_equal_distributions_is_unbiased():
    kid = KernelDistance(some_features(400, seed=1), subsets=50, subset_size=200)
    kid.update(some_features(400), torch.arange(400))
    value, std = kid.compute()
    assert abs(value) < 3 * std
    away = KernelDistance(some_features(400, seed=1) + 1, subsets=50, subset_size=200)
    away.update(some_features(400), torch.arange(400))
    assert away.compute().value > 3 * std


def test_precision_and_recall_tell_quality_from_coverage():
    """Real images on two sites, samples on one of them: all of them are good, half of the real ones are reached."""
    real = torch.cat([some_features(100, seed=1), some_features(100, seed=2) + 100])
    one_site = PrecisionRecall(real)
    one_site.update(some_features(200), torch.arange(200))
    precision, recall = one_site.compute()
    assert precision > 0.85
    assert 0.4 < recall <= 0.5


def test_a_sample_counts_once():
    score = InceptionScore()
    score.update(some_features(20), torch.arange(20))
    score.update(some_features(3), torch.tensor([20, 7, 21]))
    with pytest.raises(ValueError, match="sample 7 was counted twice"):
        score.compute()


@pytest.mark.parametrize("which", range(3), ids=["IS", "KID", "precision and recall"])
def test_too_few_samples_are_refused(which):
    metric = gathering_metrics()[which]
    metric.update(some_features(3), torch.arange(3))
    with pytest.raises(ValueError, match=r"as many images, not 3|among 3 samples"):
        metric.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="as many images, not 0"):
        InceptionScore().compute()
    with pytest.raises(ValueError, match="at least 2 images, not 0"):
        FeatureMoments(6).compute()


def test_a_reference_too_small_is_refused():
    with pytest.raises(ValueError, match="2 to 80 images"):
        KernelDistance(some_features(80))
    with pytest.raises(ValueError, match="among 3 real images"):
        PrecisionRecall(some_features(3))


# --- processes --------------------------------------------------------------------------------------------------------


def test_any_number_of_processes_gives_the_same_metrics(tmp_path):
    """101 samples are 7 chunks for 3 processes; 20 are 2, which leaves one of them with nothing."""
    multiprocessing.set_forkserver_preload(["metrics_in_processes"])  # imported once, not once per process
    torch.multiprocessing.start_processes(process, (tmp_path,), nprocs=3, start_method="forkserver")
    alone = {n: metrics_over(0, 1, n) for n in (101, 20)}
    for world_size in (2, 3):
        for rank in range(world_size):
            found = json.loads((tmp_path / f"{world_size}-{rank}.json").read_text())
            for n, values in alone.items():
                assert found[str(n)][0] == pytest.approx(values[0], rel=1e-10)
                assert found[str(n)][1:] == values[1:]


# --- agreement with torch_fidelity.calculate_metrics ------------------------------------------------------------------


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def smooth_images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 200 + 20 * seed
    return nn.functional.interpolate(coarse, 16, mode="bilinear").to(torch.uint8)


def both(extractor, samples, real, **settings):
    """Our metrics and torch-fidelity's, of the same images under the same extractor."""
    import torch_fidelity

    ours_of = [extractor(samples), extractor(real)]
    index = torch.arange(len(samples))
    moments = FeatureMoments(extractor.width)
    kid = KernelDistance(ours_of[1].pool, settings["kid_subsets"], settings["kid_subset_size"])
    prc, score = PrecisionRecall(ours_of[1].pool), InceptionScore()
    for part in index.split(7):
        moments.update(ours_of[0].pool[part])
        for metric in (kid, prc):
            metric.update(ours_of[0].pool[part], part)
        if ours_of[0].logits is not None:
            score.update(ours_of[0].logits[part], part)
    ours = {}
    if settings["fid"]:
        ours["frechet_inception_distance"] = frechet_distance(moments.compute(), FeatureStatistics.of(ours_of[1].pool))
    ours["kernel_inception_distance_mean"], ours["kernel_inception_distance_std"] = kid.compute()
    ours["precision"], ours["recall"] = prc.compute()
    if ours_of[0].logits is not None:
        ours["inception_score_mean"], ours["inception_score_std"] = score.compute()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch_fidelity.calculate_metrics(
            input1=Images(samples),
            input2=Images(real),
            isc=ours_of[0].logits is not None,
            kid=True,
            prc=True,
            cuda=False,
            save_cpu_ram=True,  # no worker processes
            verbose=False,
            cache=False,
            **settings,
        )
    return ours, {key: theirs[key] for key in ours}


@pytest.mark.parametrize(
    "fid",
    [False, pytest.param(True, marks=pytest.mark.slow)],  # torch-fidelity's root of a singular 2048 x 2048 matrix
    ids=["without FID", "with FID"],
)
def test_inception_agrees_with_torch_fidelity(inception_weights, fid):
    extractor = TorchFidelity(weights=inception_weights, trust=True)
    ours, theirs = both(
        extractor,
        smooth_images(11, 0),
        smooth_images(6, 1),
        fid=fid,
        kid_subsets=4,
        kid_subset_size=5,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_weights),
    )
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours["inception_score_std"] > 1e-4  # the comparison is of something


def test_any_registered_extractor_agrees_with_torch_fidelity():
    from torch_fidelity import registry
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Blocks(FeatureExtractorBase):
        """Means of blocks of pixels, linearly mixed."""

        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)
            generator = torch.Generator().manual_seed(0)
            self.mix = nn.Parameter(torch.randn(48, 32, generator=generator), requires_grad=False)

        def forward(self, x):
            return (nn.functional.adaptive_avg_pool2d(x.float() / 255, 4).flatten(1) @ self.mix,)

        @staticmethod
        def get_provided_features_list():
            return ("blocks",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "blocks"

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FEATURE_EXTRACTORS_REGISTRY, "blocks", Blocks)
        extractor = TorchFidelity("blocks", trust=True)
        assert extractor.name.startswith("blocks-")
        assert (extractor.width, extractor.has_logits) == (32, False)
        ours, theirs = both(
            extractor,
            smooth_images(150, 0),
            smooth_images(130, 1),
            fid=True,
            kid_subsets=10,
            kid_subset_size=100,
            feature_extractor="blocks",
        )
    assert ours == pytest.approx(theirs, rel=1e-4)
