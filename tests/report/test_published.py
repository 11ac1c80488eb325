"""Measured against published values: passed, failed, or not comparable and why."""

import pytest
from omegaconf import OmegaConf

from ddpm.config.compose import compose
from ddpm.config.groups import options_of
from ddpm.report import published


def verdicts(*overrides, step=800_000, **values):
    config = compose(["recipe=cifar10", *overrides])
    return {
        entry["metric"]: entry["verdict"]
        for entry in published.compare(config, {name: {"value": value} for name, value in values.items()}, step)
    }


@pytest.mark.long
def test_published_values_pass_or_fail():
    assert verdicts(fid=3.2, bits_per_dim=3.9) == {"fid": "PASS", "bits_per_dim": "FAIL"}
    assert verdicts(fid=2.5) == {"fid": "FAIL"}  # too good to be the published run
    assert verdicts("experiment=table2_mu_vlb_learned", fid=23.0) == {"fid": "PASS"}
    assert verdicts("experiment=table2_mu_simple", fid=3.2) == {}  # the paper leaves the row blank


@pytest.mark.long
def test_what_is_not_the_published_protocol_is_said_and_not_judged():
    found = verdicts("evaluation.num_samples=10_000", fid=3.2, bits_per_dim=3.75)
    assert "evaluation.num_samples=10000 instead of 50000" in found["fid"]
    assert found["bits_per_dim"] == "PASS"  # the number of samples is not its business
    assert verdicts("evaluation.kid.subset_size=50", fid=3.2) == {"fid": "PASS"}  # nor are those of another metric
    five = ("evaluation.num_samples=10_000", "optimizer.lr=1", "optimizer.warmup=7", "ema.decay=0.5", "max_steps=9")
    many = verdicts(*five, "evaluation.chunk=7", step=9, fid=3.2)  # the chunk tells only which noise is drawn
    assert len(many["fid"].split(" instead of ")) == 1 + 3
    assert many["fid"].endswith(" and 2 more")
    assert "step 1,000 of 800,000" in verdicts(fid=3.2, step=1000)["fid"]
    assert "prediction" in verdicts("prediction=x0", fid=3.2)["fid"]
    assert verdicts("seed=7", "trainer.precision=bf16-mixed", "data.path=elsewhere", fid=3.2)["fid"] == "PASS"
    config = compose(["recipe=lsun_church"])
    (entry,) = published.compare(config, {"fid": {"value": 7.9}}, 1_200_000)
    assert "StyleGAN2" in entry["verdict"]


def test_of_what_was_published_nothing_need_be_known():
    for choices in ({"recipe": "mine"}, {"recipe": "mine", "experiment": "other"}):
        for nothing in (None, {}):
            assert published.expected({"choices": choices, "expected": nothing}) == {}


@pytest.mark.long
def test_a_setting_that_the_run_lacks_is_a_departure_and_steps_that_a_foreign_file_does_not_say_are_none():
    config = compose(["recipe=cifar10"])
    measured = {"fid": {"value": 3.2}}
    config.foreign = True
    assert published.compare(config, measured, 0)[0]["verdict"] == "PASS"
    del config.optimizer.grad_clip
    assert "optimizer.grad_clip=None instead of 1" in published.compare(config, measured, 0)[0]["verdict"]


@pytest.mark.long
def test_every_expectation_is_complete():
    for kind in ("recipe", "experiment"):
        for name in options_of(kind):
            config = compose([f"recipe={name}"] if kind == "recipe" else ["recipe=cifar10", f"experiment={name}"])
            for values in OmegaConf.to_container(config.expected).values():
                assert values["source"]
                for metric, value in values.items():
                    if metric != "source":
                        assert 0 < value["tolerance"] < value["value"]
