import itertools
import json
import math
import warnings

import numpy as np
import pytest
import torch
from commands import in_processes
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_in_processes import begun, held, metrics_over, numbers, process, some_features
from safetensors.torch import save
from torch import nn

from ddpm.metrics.features import Features, TorchFidelity
from ddpm.metrics.fid import FrechetDistance, frechet_distance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.kid import KernelDistance
from ddpm.metrics.precision_recall import PrecisionRecall
from ddpm.metrics.statistics import FeatureMoments, FeatureStatistics

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
    with pytest.raises(ValueError, match="another protocol: chunk is None, not 20"):
        FeatureStatistics.load(path, PROTOCOL | {"chunk": 20})
    with pytest.raises(ValueError, match="another protocol: count is 297, not '297'"):
        FeatureStatistics.load(path, PROTOCOL | {"count": "297"})


STATISTICS = {"mean": torch.zeros(2), "cov": torch.zeros(2, 2)}
ABOUT = {"protocol": json.dumps(PROTOCOL), "count": "9"}


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"", b"mean and covariance", save(STATISTICS), save(STATISTICS, {"protocol": ABOUT["protocol"]})),
        *(save(STATISTICS, {**ABOUT, "count": "many"}), save({"mean": torch.zeros(2)}, ABOUT)),
    ],
    ids=["missing", "empty", "text", "of nothing", "of how many", "of many", "without a covariance"],
)
def test_what_is_no_file_of_statistics(tmp_path, content):
    path = tmp_path / "statistics.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a file of feature statistics"):
        FeatureStatistics.load(path, PROTOCOL)


# --- IS, KID, precision and recall ------------------------------------------------------------------------------------


REFERENCE = held(some_features(80, seed=1) + 0.2)


def gathering_metrics():
    return InceptionScore(), KernelDistance(subsets=5, subset_size=40), PrecisionRecall()


@pytest.mark.parametrize("which", range(3), ids=["IS", "KID", "precision and recall"])
def test_neither_order_nor_batches_nor_random_state_matter(which):
    x, index = some_features(101), torch.arange(101)
    once, shuffled = begun(gathering_metrics()[which], x, index), begun(gathering_metrics()[which])
    for part in torch.randperm(101).split(13):
        shuffled.update(Features(x[part], x[part]), index[part])
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    value = once.compute(101, REFERENCE)
    assert value == shuffled.compute(101, REFERENCE)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_score_of_certain_and_of_uncertain_classifications():
    """Ten classes, each image surely in one, as many of each: exp(log 10). No information: exp(0)."""
    certain = begun(InceptionScore(splits=1), 100 * torch.eye(10).repeat(20, 1))
    uncertain = begun(InceptionScore(splits=1), torch.ones(200, 10))
    assert math.isclose(numbers(certain, 200)[0], 10, rel_tol=1e-6)
    assert math.isclose(numbers(uncertain, 200)[0], 1, rel_tol=1e-6)


def test_kernel_distance_of_equal_distributions_is_unbiased():
    kid, real = begun(KernelDistance(subsets=50, subset_size=200), some_features(400)), some_features(400, seed=1)
    value, std = numbers(kid, 400, held(real))
    assert abs(value) < 3 * std
    assert numbers(kid, 400, held(real + 1))[0] > 3 * std


def test_precision_and_recall_tell_quality_from_coverage():
    """Real images on two sites, samples on one of them: all of them are good, half of the real ones are reached."""
    real = torch.cat([some_features(100, seed=1), some_features(100, seed=2) + 100])
    precision, recall = numbers(begun(PrecisionRecall(), some_features(200)), 200, held(real))
    assert precision > 0.85
    assert 0.4 < recall <= 0.5


@pytest.mark.parametrize("k", [1, 3, 6])
def test_precision_and_recall_are_shares_within_the_reach_of_the_kth_neighbour(k):
    samples, real = some_features(60).double(), 1.2 * some_features(50, seed=1).double() + 0.3

    def share(of, within):
        reach = torch.cdist(within, within).sort().values[:, k]  # itself comes first
        return float((torch.cdist(of, within) <= reach).any(1).double().mean())

    found = numbers(begun(PrecisionRecall(k), samples.float()), 60, held(real.float()))
    assert list(found) == pytest.approx([share(samples, real), share(real, samples)])


def test_kernel_distance_is_the_unbiased_one_of_the_cubic_kernel():
    """KID of one subset, which is all images, is the formula itself."""
    x, y = some_features(40).double(), some_features(40, seed=1).double() + 0.2
    xx, yy, xy = ((a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    expected = sum(float((k.sum() - k.trace()) / (40 * 39)) for k in (xx, yy)) - 2 * float(xy.mean())
    value, std = numbers(begun(KernelDistance(1, 40), x.float()), 40, held(y.float()))
    assert value == pytest.approx(expected, rel=1e-4)
    assert std == pytest.approx(0, abs=1e-9)
    assert numbers(begun(KernelDistance(9, 20), x.float()), 40, held(y.float()))[1] > 1e-4


def test_score_is_the_mean_divergence_from_the_marginal():
    logits = some_features(90).double()
    p = logits.softmax(1)
    expected = float((p * (p / p.mean(0)).log()).sum(1).mean().exp())
    assert numbers(begun(InceptionScore(1), logits.float()), 90)[0] == pytest.approx(expected, rel=1e-5)
    assert len({numbers(begun(InceptionScore(splits), logits.float()), 90)[0] for splits in (1, 2, 9)}) == 3


def test_a_score_is_the_mean_over_splits_of_one_permutation_of_the_logits():
    """torch-fidelity's permutation, by the seed that it publishes; pooled features have no part in it."""
    logits = some_features(90)
    score = InceptionScore(9)
    score.begin(6)
    score.update(Features(torch.zeros(90, 6), logits), torch.arange(90))
    order = np.random.RandomState(2020).permutation(90)
    parts = logits.double()[torch.from_numpy(order)].softmax(1).split(10)
    each = torch.stack([(p * (p / p.mean(0)).log()).sum(1).mean().exp() for p in parts])
    assert numbers(score, 90) == pytest.approx([each.mean().item(), each.std(unbiased=False).item()], rel=1e-5)


def test_a_note_says_over_which_splits_of_how_many_images():
    ours, real = {"inception_score": {"n": 1500, "splits": 7}}, {"inception_score": {"n": 297, "splits": 7}}
    said = "IS: mean ± deviation over 7 splits of {} images; real ones of the train split"
    assert InceptionScore().notes(ours, real) == [said.format("297 and 1,500")]
    assert InceptionScore().notes(ours, {}) == [said.format("1,500")]
    assert InceptionScore().notes({}, real) == []


def test_a_note_says_against_what_images_and_whether_the_samples_are_few():
    metrics = {
        "fid": {"n": 2047, "reference_n": 1500, "reference": "train"},
        "fid_test": {"n": 2048, "reference_n": 297, "reference": "test"},
    }
    assert FrechetDistance().notes(metrics, {"fid": {"n": 297}, "fid_test": {"n": 1500}}) == [
        "FID: 2,047 samples against 1,500 images of the train split; fewer than 2,048, so biased upwards: "
        "compare at equal counts",
        "real images: 297 of the test split in the samples' place",
        "FID, test: 2,048 samples against 297 images of the test split",
        "real images: 1,500 of the train split in the samples' place",
    ]
    assert FrechetDistance().notes({}, {}) == []


@pytest.mark.parametrize(
    "metric",
    [InceptionScore(7), KernelDistance(3, 8), PrecisionRecall(4), FrechetDistance()],
    ids=lambda m: type(m).__name__,
)
def test_the_fewest_images_are_enough_and_one_less_is_not(metric):
    def computed(n):
        return begun(metric, some_features(n)).compute(n, REFERENCE)

    assert all(math.isfinite(entry["value"]) for entry in computed(metric.fewest).values())
    with pytest.raises(ValueError, match=r"needs|does not exist"):
        computed(metric.fewest - 1)


def test_a_sample_counts_once():
    score = begun(InceptionScore(), some_features(20), 2 * torch.arange(20))
    score.update(Features(some_features(3), some_features(3)), torch.tensor([40, 14, 42]))
    with pytest.raises(ValueError, match="sample 14 was counted twice"):
        score.compute(23)


def test_a_metric_begins_again():
    score = begun(InceptionScore(), some_features(50))
    first = score.compute(50)
    begun(score, some_features(50, seed=3))
    assert begun(score, some_features(50)).compute(50) == first


@pytest.mark.parametrize("which", range(3), ids=["IS", "KID", "precision and recall"])
def test_too_few_samples_are_refused(which):
    metric = begun(gathering_metrics()[which], some_features(3))
    with pytest.raises(ValueError, match=r"as many images, not 3|among 3 samples"):
        metric.compute(3, REFERENCE)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="as many images, not 0"):
        begun(InceptionScore()).compute(0)
    with pytest.raises(ValueError, match="at least 2 images, not 0"):
        FeatureMoments(6).compute()


def test_samples_that_are_missing_are_noticed():
    with pytest.raises(RuntimeError, match="20 images were counted where 21 were due"):
        begun(FrechetDistance(), some_features(20)).compute(21, REFERENCE)


@pytest.mark.parametrize("metric", [FrechetDistance(), KernelDistance(3, 8), PrecisionRecall()])
def test_samples_are_held_against_something(metric):
    with pytest.raises(ValueError, match="holds samples against real images, and was given none"):
        begun(metric, some_features(20)).compute(20)


def test_a_reference_too_small_is_refused():
    with pytest.raises(ValueError, match="2 to 80 images"):
        begun(KernelDistance(), some_features(80)).compute(80, REFERENCE)
    with pytest.raises(ValueError, match="among 3 real images"):
        begun(PrecisionRecall(), some_features(80)).compute(80, held(some_features(3)))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: InceptionScore(splits=0), r"evaluation.inception_score.splits=0 must be .* at least 1"),
        (lambda: KernelDistance(subsets=0), r"evaluation.kid.subsets=0 must be .* at least 1"),
        (lambda: KernelDistance(subset_size=1), r"evaluation.kid.subset_size=1 must be .* at least 2"),
        (lambda: PrecisionRecall(neighborhood=0), r"evaluation.precision_recall.neighborhood=0 must be .* at least 1"),
        (lambda: PrecisionRecall(neighborhood=True), r"evaluation.precision_recall.neighborhood=True must be"),
    ],
)
def test_settings_out_of_range_are_refused_by_their_names(made, message):
    with pytest.raises(ValueError, match=message):
        made()


def test_settings_are_torch_fidelity_s_unless_others_are_asked_for():
    from torch_fidelity.defaults import DEFAULTS

    made = InceptionScore(), KernelDistance(), PrecisionRecall()
    own = [value for metric in made for value in metric.chosen.values()]
    names = ("isc_splits", "kid_subsets", "kid_subset_size", "prc_neighborhood")
    assert own == [DEFAULTS[name] for name in names]


def test_the_least_settings_are_taken():
    made = InceptionScore(splits=1), KernelDistance(subsets=1, subset_size=2), PrecisionRecall(neighborhood=1)
    assert [metric.chosen for metric in made] == [
        {"splits": 1}, {"subsets": 1, "subset_size": 2}, {"neighborhood": 1},
    ]  # fmt: skip


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_any_number_of_processes_gives_the_same_metrics(tmp_path):
    """101 samples are 7 chunks for 3 processes; 20 are 2, which leaves one of them with nothing."""
    in_processes(3, process, tmp_path)
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
    kid = KernelDistance(settings["kid_subsets"], settings["kid_subset_size"])
    fid, prc, score = FrechetDistance(), PrecisionRecall(), InceptionScore()
    metrics = [fid, kid, prc, *([score] if ours_of[0].logits is not None else [])]
    for metric in metrics:
        metric.begin(extractor.width)
        for part in index.split(7):
            logits = ours_of[0].logits
            metric.update(Features(ours_of[0].pool[part], None if logits is None else logits[part]), part)
    ours, n, real_ones = {}, len(samples), held(ours_of[1].pool)
    if settings["fid"]:
        (ours["frechet_inception_distance"],) = numbers(fid, n, real_ones)
    ours["kernel_inception_distance_mean"], ours["kernel_inception_distance_std"] = numbers(kid, n, real_ones)
    ours["precision"], ours["recall"] = numbers(prc, n, real_ones)
    if ours_of[0].logits is not None:
        ours["inception_score_mean"], ours["inception_score_std"] = numbers(score, n)
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
@pytest.mark.long
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
