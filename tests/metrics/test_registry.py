"""A metric is registered once: one class and one file in conf/metric/, and everything else knows it."""

import shutil
import subprocess
import sys

import pytest
from evaluated import SMALL, made
from written_runs import write_run

from ddpm import report
from ddpm.config import groups, saved, targets
from ddpm.config.compose import compose
from ddpm.config.groups import CONF
from ddpm.config.saved import compose_saved, plain
from ddpm.launch import Place
from ddpm.metrics import registry
from ddpm.metrics.sample_metric import SampleMetric
from ddpm.report import collect, protocols, table
from ddpm.sweep import job

CLASS = """
from ddpm.metrics.sample_metric import SampleMetric, at_least


class Spread(SampleMetric):
    quantities = {"spread": {"title": "spread", "digits": 2, "better": "higher"}}
    parts = {"spread_power": "power"}

    def __init__(self, power=1):
        self.power = at_least("evaluation.spread.power", power, 1)

    @property
    def fewest(self):
        return 2

    def compute(self, rows, reference):
        width = len(reference.statistics.mean)
        return {"spread": {"value": float(rows.double().std(0).mean() ** self.power), "seen": width}}
"""


@pytest.fixture
def spread(tmp_path, monkeypatch):
    """conf/ with one more metric, and its class."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "metric" / "spread.yaml").write_text("# @package evaluation.spread\n_target_: my_metric.Spread\npower: 1\n")
    (tmp_path / "my_metric.py").write_text(CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    for module in (groups, saved, targets):
        monkeypatch.setattr(module, "CONF", conf)
    caches = (targets.allowed_targets, targets.target_of)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


MEASURED = "evaluation.metrics=[fid,spread]"


def test_it_is_measured_protocolled_and_printed(spread, workspace, capsys):
    p, evaluation = made(MEASURED, "evaluation.spread.power=2")
    results = evaluation.run(p, Place(0, 1, next(p.parameters()).device), {"ckpt": "none"})
    assert results.metrics["spread"].keys() == {"value", "seen", "n", "reference"}
    assert (results.metrics["spread"]["n"], results.metrics["spread"]["seen"]) == (101, 64)
    assert results.real["spread"]["value"] > 0
    assert results.protocol["feature_metrics"]["spread_power"] == 2
    results.print()
    printed = capsys.readouterr().out
    assert "spread" in printed
    assert f"{results.metrics['spread']['value']:.2f}" in printed


def test_what_is_not_measured_leaves_the_fingerprint_alone(spread):
    p, evaluation = made("evaluation.metrics=[fid]", "evaluation.spread.power=3")
    assert "spread_power" not in evaluation.protocol(p)["feature_metrics"]


def test_its_settings_and_its_counts_are_checked(spread):
    with pytest.raises(ValueError, match=r"evaluation.spread.power=0 must be a whole number of at least 1"):
        made(MEASURED, "evaluation.spread.power=0")
    with pytest.raises(ValueError, match=r"unknown; known are .*spread"):
        made("evaluation.metrics=[sprad]")


def test_a_search_can_optimise_it_in_its_direction(spread):
    assert job.metric(compose([*SMALL, MEASURED, "optimized_metric=spread"])) == "spread"
    assert registry.of("spread").better == "higher"
    assert registry.of("spread_test").title == "spread, test"


def test_a_run_that_is_older_than_the_metric_can_be_measured_by_it(spread):
    base = plain(compose(SMALL))
    del base["evaluation"]["spread"]
    assert compose_saved(base, [MEASURED, "evaluation.spread.power=4"]).evaluation.spread.power == 4


def test_a_report_ranks_it(spread, tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        write_run(tmp_path / "runs" / name, choices={"prediction": name}, metrics={"spread": {"value": value}})
    made_table = table.of(collect.within([tmp_path / "runs"]))
    (column,) = [i for i, column in enumerate(made_table.columns) if column.metric == "spread"]
    assert made_table.best == {(1, column)}
    assert made_table.columns[column].number(2.345) == "2.35"
    assert protocols.void("feature_metrics.spread_power", "spread")
    assert not protocols.void("feature_metrics.spread_power", "fid")


def test_an_unknown_metric_is_shown_and_not_ranked(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        write_run(tmp_path / "runs" / name, choices={"prediction": name}, metrics={"strange": {"value": value}})
    made_table = table.of(collect.within([tmp_path / "runs"]))
    assert [column.title for column in made_table.columns] == ["strange"]
    assert not made_table.best
    report.write(collect.within([tmp_path / "runs"]), [tmp_path / "runs"], tmp_path)
    assert "strange" in (tmp_path / "report.md").read_text()


def test_the_metrics_that_ship():
    assert registry.known()[::3] == [
        "inception_score", "fid", "kid", "precision", "recall", "bits_per_dim", "bound_nats",
    ]  # fmt: skip
    assert [registry.of(name).title for name in ("fid", "kid_test", "bound_nats")] == [
        "FID",
        "KID, test",
        "bound (nats)",
    ]
    assert {name: registry.of(name).better for name in ("inception_score", "recall", "fid", "bits_per_dim")} == {
        "inception_score": "higher", "recall": "higher", "fid": "lower", "bits_per_dim": "lower",
    }  # fmt: skip
    assert SampleMetric.__abstractmethods__ == {"fewest"}


def test_the_registry_waits_for_no_torch():
    code = "import sys; from ddpm.metrics import registry; registry.known(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
