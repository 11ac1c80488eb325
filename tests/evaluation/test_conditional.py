"""A model that is told classes is evaluated with the data's own, and says so in its protocol."""

import pytest
import torch
from evaluated import CPU, SMALL, made
from random_checkpoint import saved

import ddpm
from ddpm import build
from ddpm.config.compose import compose
from ddpm.data.conditioning import Label
from ddpm.diffusion.prediction import X0
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedSmall
from ddpm.launch import Rank
from ddpm.metrics.features import FeatureExtractor, Features
from ddpm.networks.network import Network

TOLD = ["condition=label", "evaluation.metrics=[inception_score,fid,agreement,bits_per_dim]"]


class Tells(Network):
    """Makes of class k an image that has the level k throughout."""

    event_ndim = 3
    takes = ("labels",)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, t, told):
        self.seen.append(told.labels.tolist())
        return (told.labels / 127.5 - 1)[:, None, None, None].expand(x.shape)


class Reads(FeatureExtractor):
    """Reads that level as the class, or a neighbour of it."""

    def __init__(self, beside=0):
        super().__init__()
        self.name, self.classifies, self.protocol = "reads", "digits", {"extractor": "reads"}
        self.trusted, self.width, self.has_logits, self.beside = True, 2, True, beside

    def extract(self, images):
        level = images[:, 0, 0, 0].long()
        pool = torch.stack([level, level**2], 1).float()
        return Features(pool, torch.nn.functional.one_hot((level + self.beside) % 256, 256).float())


def teller():
    return ReverseProcess(Tells(), ForwardProcess(linear(20, beta_T=0.3)), X0(), FixedSmall()).eval()


@pytest.fixture
def telling():
    _, evaluation = made(*TOLD)
    return teller(), evaluation


@pytest.mark.parametrize(("beside", "agreement"), [(0, 1.0), (1, 0.0)])
def test_samples_are_held_against_the_labels_that_they_were_told(telling, beside, agreement):
    p, evaluation = telling
    evaluation.extractor = Reads(beside)
    results = evaluation.run(p, Rank(0, 1, CPU), {})
    assert results.metrics["agreement"]["value"] == agreement
    test = evaluation.images.split("test").labels
    counts = torch.tensor(p.network.seen[4]).bincount(minlength=10)  # of the first chunk; the trial calls come before
    assert counts.sum() == 20
    bound = [labels for labels in p.network.seen if labels == test[:20].tolist()]
    assert len(bound) == 20  # every t of the first chunk of real images, told their own labels


def test_the_classifier_s_accuracy_is_that_of_every_real_image_and_its_own_label():
    _, evaluation = made("condition=label", "evaluation.metrics=[agreement]", "evaluation.fid_split=train")
    evaluation.extractor = Reads()
    found = evaluation.run(teller(), Rank(0, 1, CPU), {}).real["agreement"]
    train = evaluation.images.split("train")
    read = train.__getitems__(list(range(101)))[:, 0, 0, 0].tolist()
    agrees = [level == label for level, label in zip(read, train.labels[:101].tolist(), strict=True)]
    assert 0 < sum(agrees) < 101
    assert (found["value"], found["n"]) == (pytest.approx(sum(agrees) / 101), 101)


def test_a_class_is_held_against_as_many_real_images_of_it_as_there_are_among_the_first():
    _, evaluation = made("condition=label", "evaluation.metrics=[by_class]", "evaluation.num_samples=210")
    results = evaluation.run(teller(), Rank(0, 1, CPU), {})
    samples = evaluation._told()(range(210)).labels
    images = evaluation.images.split("test").labels[:210], evaluation.images.split("train").labels[:210]
    counts = [labels.bincount(minlength=10) for labels in (samples, *images)]
    for measured, other in ((results.metrics, counts[0]), (results.real, counts[2])):
        enough = (torch.minimum(counts[1], other) >= 20).sum()
        assert 0 < enough < 10
        assert measured["fid_by_class"]["classes"] == enough


def test_samples_are_told_what_the_images_are_that_they_are_held_against_in_the_seed_s_order():
    orders = []
    for settings, split in [([], "test"), (["evaluation.seed=1"], "test"), (["evaluation.fid_split=both"], "train")]:
        _, evaluation = made("condition=label", "evaluation.metrics=[fid]", *settings)
        own = evaluation.images.split(split).labels
        told = evaluation._told()(range(len(own))).labels
        assert torch.equal(told.sort().values, own.sort().values)
        orders.append(told[:100].tolist())
    assert orders[0] != orders[1]


def test_other_processes_draw_the_same_samples_of_the_same_classes(telling):
    _, evaluation = telling
    told = evaluation._told()
    together = told(range(101)).labels
    assert torch.equal(torch.cat([told(range(k, k + 20)).labels for k in range(0, 100, 20)]), together[:100])
    share = together.bincount(minlength=10) / 101
    own = evaluation.images.split("test").labels.bincount(minlength=10) / 297
    assert (share - own).abs().max() < 0.1


def test_what_is_told_and_guidance_are_part_of_the_protocol_and_of_no_other():
    def protocol(*words):
        p, evaluation = made(*words)
        return evaluation.protocol(p)

    plain = protocol()
    assert not {"condition", "guidance"} & plain.keys()
    told = protocol("condition=label")
    assert told["condition"]["told"] == "labels"
    assert told["condition"]["classes"] == 10
    found = [plain, told, protocol("condition=label", "condition.drop=0.2")]
    for words in (["guidance.scale=1.0"], ["guidance.scale=2.0"], ["guidance.scale=1.0", "guidance.interval=[2,9]"]):
        found.append(protocol("condition=label", "guidance=cfg", *words))
    assert len({each["fingerprint"] for each in found}) == len(found)
    none = protocol("condition=label", "guidance=cfg", "guidance.scale=0.0")
    assert none["fingerprint"] == told["fingerprint"]  # the same samples


def test_agreement_needs_classes_and_a_classifier_of_them():
    for words, said in [([], "this network knows none"), (TOLD, "features=other is none")]:
        config = compose([*SMALL, *words, "evaluation.metrics=[agreement]"])
        images = build.dataset(config)
        extractor = Reads()
        extractor.name, extractor.classifies = "other", None
        parts = (build.sampler(config), extractor, build.sample_metrics(config), made()[1].settings)
        settings = type(parts[3])(**{**vars(parts[3]), "metrics": ["agreement"]})
        with pytest.raises(ValueError, match=said):
            type(made()[1])(images, *parts[:3], settings, build.conditioning(config))
    assert Label(10).classes == 10


@pytest.mark.parametrize("words", [[], ["condition=label"]])
def test_a_weaker_checkpoint_leads(words, tmp_path):
    axes = [*SMALL, *words]
    weak = saved(tmp_path / "weak.ckpt", *axes, "network.channels=8", "network.num_res_blocks=2")
    config = compose([*axes, "guidance=auto", f"guidance.weak={weak}", "guidance.scale=0.7"])
    images = build.dataset(config)
    p, guidance = build.reverse_process(config, images), build.guidance(config, images)
    with torch.no_grad():
        for weight in p.parameters():
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    told = build.conditioning(config).shown(images, 3)
    x, t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 9, 20])
    poor = ddpm.load(weak).given(told)
    with torch.no_grad():
        good, bad, led = (each(x, t).output for each in (p.given(told), poor, guidance(p).given(told)))
    torch.testing.assert_close(led, good + 0.7 * (good - bad))
    assert (good - bad).norm() > 0.1 * good.norm()
    found = build.evaluation(config, images).protocol(p)["guidance"]
    assert found["name"] == "autoguidance"
    assert len(found["weak"]) == 64  # its weights, wherever they lie


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["prediction=v"], "prediction"),
        (["schedule.T=30"], "schedule"),
        (["condition=label"], "condition"),
        (["recipe=cifar10", "network.channels=32"], "images"),
    ],
)
def test_a_weaker_checkpoint_of_another_kind_is_refused(words, named, tmp_path):
    weak = saved(tmp_path / "weak.ckpt", *SMALL, *words)
    config = compose([*SMALL, "guidance=auto", f"guidance.weak={weak}"])
    with pytest.raises(ValueError, match=f"with other .*{named}"):
        build.guidance(config, build.dataset(config))
