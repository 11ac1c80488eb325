"""What cannot be measured is refused before anything is."""

from urllib.error import URLError

import pytest
import torch
from evaluated import SMALL, made

from ddpm import build
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.data.digits import Digits
from ddpm.evaluation import checks
from ddpm.evaluation.evaluation import Evaluation
from ddpm.launch import Rank


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.metrics=[fdi]"], "fdi unknown; known are"),
        (["evaluation.metrics=[]"], "is empty"),
        (["evaluation.metrics=[bound_nats]"], "measures points"),
        (["evaluation.num_samples=9"], "10 or more"),
        (["evaluation.num_samples=49"], "kid needs 50 or more"),
        (["evaluation.num_samples=400", "evaluation.kid.subset_size=300"], "has 297 images: kid needs 300"),
        (["evaluation.num_samples=1", "evaluation.metrics=[fid]"], "at least 2"),
        (["evaluation.bits_per_dim.evaluations=5"], "at least 6"),
        (["evaluation.precision=bf16-true"], "use 32-true or bf16-mixed"),
        (["evaluation.bits_per_dim.decoder=logistic"], "tanh"),
        (["evaluation.fid_split=validation"], "train, test or both"),
        (["recipe=swiss_roll", "sampler.steps=5", "evaluation.metrics=[fid]"], "swiss_roll is points"),
    ],
)
def test_what_cannot_be_measured_is_refused(overrides, message):
    with pytest.raises((ValueError, RequestError), match=message):
        made(*overrides)


def test_a_training_holds_its_samples_against_one_split(workspace):
    """Where both are asked for, a training takes the split that is quoted first: its metric's name has none."""
    words = ["every.metrics=400", "validation={num_samples: 20, metrics: [fid]}", "evaluation.fid_split=both"]
    config = compose([*SMALL, *words])
    evaluation = build.sample_metrics_in_training(config, build.dataset(config))
    p, _ = made()
    found = evaluation.measure_samples(p, Rank(0, 1, torch.device("cpu")), lambda: None)
    assert {name: entry["reference"] for name, entry in found.items()} == {"fid": "train"}


def test_just_enough_is_enough():
    made("evaluation.num_samples=50")  # of which a subset of KID is made
    made("evaluation.num_samples=297", "evaluation.kid.subset_size=297", "evaluation.fid_split=both")


def test_the_bound_needs_no_features(monkeypatch, tmp_path):
    def no_network(*_):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    inception = ["features=inception", "schedule.T=20"]
    p, evaluation = made(*inception, "evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.images=4")
    found = evaluation.run(p, Rank(0, 1, torch.device("cpu")), {}, tmp_path / "out")
    assert list(found.metrics) == ["bits_per_dim"]
    assert found.protocol["features"] == {"extractor": "inception-v3-compat", "weights": "not at hand"}
    for refused in ("evaluation.metrics=[fid,bits_per_dim]", "evaluation.metrics=[inception_score]"):
        with pytest.raises(ValueError, match="could not be fetched"):
            made(*inception, refused)
    with pytest.raises(ValueError, match="nowhere"):
        made(*inception, "evaluation.metrics=[bits_per_dim]", "features.weights=nowhere")


def test_features_without_classes_have_no_inception_score():
    _, evaluation = made()
    evaluation.extractor.has_logits = False
    arguments = (
        evaluation.images,
        evaluation.extractor,
        evaluation.metrics,
        evaluation.settings,
        evaluation.conditioning,
    )
    with pytest.raises(ValueError, match="features=digits has no classes, so no inception_score: leave it out"):
        checks.check(*arguments)


def test_data_are_prepared_before_they_are_asked_for(monkeypatch):
    """A dataset may write in `prepare` what `split` reads."""
    prepared, split = [], Digits.split
    monkeypatch.setattr(Digits, "prepare", lambda images: prepared.append(images))

    def of_prepared(images, name):
        assert images in prepared
        return split(images, name)

    monkeypatch.setattr(Digits, "split", of_prepared)
    with pytest.raises(ValueError, match="fdi unknown"):
        made("evaluation.metrics=[fdi]")
    assert not prepared
    made("condition=label", "evaluation.metrics=[fid,agreement]")
    assert prepared


@pytest.mark.parametrize("what", ["sampler", "guidance"])
def test_what_no_protocol_can_say_is_refused(what):
    _, evaluation = made("condition=label", "guidance=cfg")
    parts = {"sampler": evaluation.sampler, "guidance": evaluation.guidance}
    parts[what].weight = lambda t: t
    known = (evaluation.extractor, evaluation.metrics, evaluation.settings, evaluation.conditioning)
    with pytest.raises(ValueError, match=r"\.weight is a function: .* must be numbers, texts, or lists of them"):
        Evaluation(evaluation.images, parts["sampler"], *known, parts["guidance"])
