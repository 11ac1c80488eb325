"""The protocol of a number changes with everything that the number depends on, and with nothing else."""

import pytest
from evaluated import made

from ddpm.evaluation.protocol import digest_of_weights


def fingerprint(*overrides):
    p, evaluation = made(*overrides)
    return evaluation.protocol(p)["fingerprint"]


@pytest.fixture(scope="module")
def plain():
    return fingerprint()


@pytest.mark.parametrize(
    "override",
    [
        "sampler.eta=0.5",
        "sampler.steps=5",
        "sampler.spacing=quadratic",
        "sampler=ancestral sampler.steps=4",
        "schedule.T=21",
        "evaluation.num_samples=102",
        "evaluation.fid_split=both",
        "evaluation.split=train",
        "evaluation.bits_per_dim.images=50",
        "evaluation.bits_per_dim.evaluations=9",
        "evaluation.bits_per_dim.decoder=exact",
        "evaluation.kid.subsets=4",
        "evaluation.kid.subset_size=49",
        "evaluation.inception_score.splits=5",
        "evaluation.precision_recall.neighborhood=5",
        "evaluation.precision=bf16-mixed",
        "evaluation.chunk=21",
        "evaluation.seed=1",
    ],
)
def test_another_measure_has_another_fingerprint(plain, override):
    assert fingerprint(*override.split()) != plain


@pytest.mark.parametrize("override", ["seed=3", "evaluation.metrics=[fid]", "name=other", "trainer.devices=2"])
def test_another_model_or_machine_or_choice_of_metrics_has_not(plain, override):
    assert fingerprint(override) == plain


def test_as_many_evaluations_as_there_are_terms_are_the_bound_itself():
    long = "schedule.T=100"
    all_of_them, fewer = (fingerprint(long, f"evaluation.bits_per_dim.evaluations={n}") for n in (100, 99))
    assert all_of_them == fingerprint(long) != fewer


def test_data_weights_and_features_are_part_of_it(plain, monkeypatch):
    p, evaluation = made()
    assert evaluation.protocol(p)["weights"] == "exponential moving average"
    monkeypatch.setattr(evaluation.images, "fingerprint", "others", raising=False)
    assert evaluation.protocol(p)["fingerprint"] != plain
    monkeypatch.undo()
    assert evaluation.protocol(p)["fingerprint"] == plain
    evaluation.extractor.protocol["weights"] = "others"
    assert evaluation.protocol(p)["fingerprint"] != plain


def test_the_digest_is_of_every_weight():
    p, _ = made()
    seen = {digest_of_weights(p)}
    assert digest_of_weights(p) in seen
    for weight in p.network.parameters():
        weight.view(-1)[-1] += 1
        seen.add(digest_of_weights(p))
    assert len(seen) == 1 + len(list(p.network.parameters()))
