"""One class and one file in conf/metric make a metric: measured, in the protocol, shown, ranked, and searched for."""

import subprocess
import sys

import numpy as np
import pytest
from evaluated import CPU, SMALL
from written_runs import write_run

from ddpm import build
from ddpm.config import evaluation as config_evaluation
from ddpm.config import groups, saved
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.launch import Rank
from ddpm.metrics import registry
from ddpm.report import collect, table
from ddpm.sweep import cells, engines, sweep

PROTOCOL = {"inception_score_splits", "kid_subsets", "kid_subset_size", "neighborhood"}


@pytest.fixture
def own_metric(tmp_path, monkeypatch):
    """A user's folder with one file."""
    file = tmp_path / "conf" / "metric" / "spread.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package evaluation.spread\n_target_: own_metric.Spread\npower: 2\n")
    monkeypatch.setenv(groups.OWN, str(tmp_path / "conf"))


def evaluated(*overrides):
    config = compose([*SMALL, *overrides])
    images = build.dataset(config)
    p = build.reverse_process(config, images).requires_grad_(False).eval()
    return build.evaluation(config, images).run(p, Rank(0, 1, CPU), {})


@pytest.mark.long
@pytest.mark.usefixtures("own_metric")
def test_it_is_measured_and_stated_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    results = evaluated("evaluation.metrics=[spread]", "evaluation.spread.power=3")
    assert results.metrics["spread"].keys() == {"value", "n", "power"}
    assert results.real.keys() == {"spread"}
    images = build.dataset(compose([])).split("train").__getitems__(list(range(101)))
    rows = build.features(compose([]))(images).pool.double().numpy()
    assert results.real["spread"]["value"] == pytest.approx((np.abs(rows - rows.mean(0)) ** 3).mean(), rel=1e-4)
    assert results.metrics["spread"]["value"] != results.real["spread"]["value"]
    assert results.protocol["feature_metrics"].keys() == {*PROTOCOL, "spread_power"}
    assert "Spread: of 101 samples" in results.notes()
    results.print()
    assert "Spread" in capsys.readouterr().out


@pytest.mark.usefixtures("own_metric")
def test_what_is_not_measured_is_no_part_of_the_protocol():
    config = compose([*SMALL, "evaluation.metrics=[fid]", "evaluation.spread.power=3"])
    images = build.dataset(config)
    protocol = build.evaluation(config, images).protocol(build.reverse_process(config, images))
    assert protocol["feature_metrics"].keys() == PROTOCOL


@pytest.mark.usefixtures("own_metric")
def test_its_settings_are_checked():
    with pytest.raises(ValueError, match=r"evaluation\.spread\.power=0 must be a whole number of at least 1"):
        evaluated("evaluation.metrics=[spread]", "evaluation.spread.power=0")


@pytest.mark.usefixtures("own_metric")
def test_it_can_be_searched_for():
    config = compose(["evaluation.metrics=[fid,spread]", "optimized_metric=spread"])
    assert cells.metric(config) == "spread"
    with pytest.raises(RequestError, match="direction=maximize"):
        sweep._check_metric("spread", True, engines.of(["hydra/sweeper=optuna"])[0])


@pytest.mark.usefixtures("own_metric")
def test_a_checkpoint_that_does_not_know_it_can_be_measured_by_it():
    trained = saved.plain(compose(["evaluation.kid.subset_size=33"]))
    config = config_evaluation.compose_evaluation(trained, ["evaluation.metrics=[kid,spread]"])
    metrics = build.sample_metrics(config)
    assert list(metrics) == ["inception_score", "fid", "kid", "precision_recall", "agreement", "by_class", "spread"]
    assert metrics["kid"].chosen == {"subsets": 100, "subset_size": 33}


def two_lines(folder, *powers):
    """The table of two runs, the second of which has the larger spread and the larger FID."""
    runs = [
        write_run(
            folder / str(k),
            settings={"optimizer.lr": k},
            metrics={"fid": {"value": 2.0 + k, "n": 1500}, "spread": {"value": 1.0 + k, "n": 1500}},
            protocol={"feature_metrics": {"spread_power": power}},
        )
        for k, power in enumerate(powers)
    ]
    return table.of(collect.within(runs))


@pytest.mark.usefixtures("own_metric")
def test_a_table_shows_and_ranks_it(tmp_path):
    found = two_lines(tmp_path, 2, 2)
    assert [column.title for column in found.columns] == ["FID", "Spread"]
    assert found.best == {(0, 0), (1, 1)}
    assert found.lines[1].shown(found.columns[1]) == "2.00"


@pytest.mark.usefixtures("own_metric")
def test_another_setting_keeps_only_it_from_being_ranked(tmp_path):
    assert two_lines(tmp_path, 2, 3).best == {(0, 0)}


def test_a_metric_that_is_not_installed_is_shown_by_its_name_and_not_ranked(tmp_path):
    found = two_lines(tmp_path, 2, 3)
    assert [column.title for column in found.columns] == ["FID", "spread"]
    assert found.best == {(0, 0)}


def test_facts_are_read_without_torch():
    script = "import sys; from ddpm.metrics import registry; print(*registry.known()); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "fid" in done.stdout.split()
    assert "bound_nats_train" in done.stdout.split()


def test_which_way_is_better():
    better = {name: registry.of(name).better for name in registry.known() if name == registry.base_of(name)}
    assert {name: way for name, way in better.items() if way} == {
        **dict.fromkeys(("inception_score", "precision", "recall", "agreement"), "higher"),
        **dict.fromkeys(("fid", "kid", "fid_by_class", "kid_by_class", "bits_per_dim", "bound_nats"), "lower"),
    }


def test_facts_are_those_of_the_classes():
    made, known = build.sample_metrics(compose([])), registry.metrics()
    assert {metric.needs_reference for metric in made.values()} == {True, False}
    for name, metric in made.items():
        assert (known[name].needs_reference, known[name].settings) == (metric.needs_reference, metric.settings)
        assert list(known[name].quantities) == list(metric.quantities)


def test_names_and_splits():
    assert registry.of("fid_test").title == "FID, test"
    assert registry.base_of("precision_train") == "precision"
    assert registry.base_of("spread_test") == "spread_test"
    assert not registry.of("bits_per_dim_gap").in_tables
