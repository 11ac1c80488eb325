"""One line for each configuration; what is the best of what may be compared."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from written_runs import measured, write_cell, write_run

from ddpm.config.compose import compose
from ddpm.report import collect, table
from ddpm.report.run import ReportedRun
from ddpm.report.settings import differences, under


def made(*folders):
    return table.of(collect.within(folders))


def column(found, title):
    return next(column for column in found.columns if column.title == title)


def best(found, title):
    j = found.columns.index(column(found, title))
    return [line.name for i, line in enumerate(found.lines) if (i, j) in found.best]


def test_a_name_is_under_a_section_or_is_it():
    assert [under(name, ("bound", "seed")) for name in ("bound", "bound.images", "boundary", "seed", "seeds")] == [
        *(True, True, False, True, False)
    ]


def test_seeds_are_one_line_with_mean_and_sample_deviation(tmp_path):
    for seed, fid in ((1, 2.0), (2, 3.0), (3, 7.0)):
        write_cell(tmp_path, seed, "objective=vlb", f"seed={seed}", seed=seed, metrics=measured(fid=fid))
    found = made(tmp_path)
    (line,) = found.lines
    assert line.shown(column(found, "FID")) == "4.000 ± 2.646"  # the root of (4 + 1 + 9) / 2
    assert line.seeds == "3"
    assert any("sample deviation over seeds" in note for note in found.notes)


def test_a_metric_s_own_error_is_not_said_of_several_runs(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"{seed}", seed=seed, metrics=measured(inception_score=9.0 + seed))
    found = made(tmp_path)
    (line,) = found.lines
    assert line.error(column(found, "IS")) == ""
    assert not any("own error" in note for note in found.notes)


def test_means_over_what_finished_are_not_said_where_nothing_did(tmp_path):
    write_cell(tmp_path, 0, "objective=vlb", choices={"objective": "vlb"}, metrics=measured(fid=2.0))
    write_cell(tmp_path, 1, "objective=simple", status="diverged", reason="the loss is not finite")
    assert not any("Means are over" in note for note in made(tmp_path).notes)


def test_lines_over_the_same_seeds_of_noise_are_ranked(tmp_path):
    for i, (steps, seed) in enumerate(((5, 0), (5, 1), (10, 0), (10, 1))):
        protocol = {"seed": seed, "sampler": {"num_steps": steps}, "fingerprint": f"f{i}"}
        write_cell(tmp_path, i, f"sampler.steps={steps}", f"evaluation.seed={seed}", protocol=protocol,
                   metrics=measured(fid=20.0 - steps + seed))  # fmt: skip
    found = made(tmp_path)
    assert [(line.settings, [run.seed for run in line.runs]) for line in found.lines] == [
        ({"sampler.steps": steps}, ["0", "1"]) for steps in ("5", "10")
    ]
    assert best(found, "FID") == ["sampler.steps=10"]
    assert not any("seed:" in note for note in found.notes)


def test_one_run_shows_its_own_error_in_brackets(tmp_path):
    found = made(write_run(tmp_path / "a", metrics=measured(fid=2.0, inception_score=9.0, bits_per_dim=4.0)))
    (line,) = found.lines
    assert [line.shown(each) for each in found.columns] == ["9.000 (± 0.250)", "2.000", "4.0000 (± 0.0250)", "2.0000",
                                                            "2.0000"]  # fmt: skip
    assert [each.title for each in found.columns] == ["IS", "FID", "bits/dim", "rate", "distortion"]
    assert any("own error" in note for note in found.notes)


def test_only_finished_runs_count_and_the_others_say_why(tmp_path):
    write_cell(tmp_path, 0, "objective=vlb", "seed=1", seed=1, metrics=measured(fid=2.0))
    write_cell(tmp_path, 1, "objective=vlb", "seed=2", seed=2, metrics=measured(fid=900.0), status="diverged",
               reason="the loss is not finite")  # fmt: skip
    found = made(tmp_path)
    (line,) = found.lines
    assert line.mean(column(found, "FID")) == 2.0
    assert line.seeds == "1 of 2"
    assert line.note == "seed 2 diverged: the loss is not finite"
    assert "Means are over the runs that finished." in found.notes


def test_the_best_mean_is_marked_in_its_direction_and_ties_are_all(tmp_path):
    for i, (lr, fid, score) in enumerate([(1, 2.0, 8.0), (2, 1.5, 9.0), (3, 1.5, 7.0), (4, None, None)]):
        metrics = measured(fid=fid, inception_score=score)
        write_cell(tmp_path, i, f"optimizer.lr={lr}", settings={"optimizer.lr": lr}, metrics=metrics)
    found = made(tmp_path)
    assert best(found, "FID") == ["optimizer.lr=2", "optimizer.lr=3"]
    assert best(found, "IS") == ["optimizer.lr=2"]


def test_what_the_errors_do_not_tell_from_the_best_is_marked_with_it(tmp_path):
    """FIDs of two seeds: 2.0 ± 0.28, 2.3 ± 0.14 and 3.0 ± 0.28; the roots of the sums of squares are 0.32 and 0.4."""
    by_lr = {1: (1.8, 2.2), 2: (2.2, 2.4), 3: (2.8, 3.2)}
    for i, (lr, seed) in enumerate((lr, seed) for lr in by_lr for seed in (0, 1)):
        metrics = measured(fid=by_lr[lr][seed], bits_per_dim={1: 4.0, 2: 4.03, 3: 4.04}[lr] if seed == 0 else None)
        own = {"optimizer.lr": lr}
        write_cell(tmp_path, i, f"optimizer.lr={lr}", f"seed={seed}", seed=seed, settings=own, metrics=metrics)
    found = made(tmp_path)
    assert best(found, "FID") == ["optimizer.lr=1", "optimizer.lr=2"]
    assert best(found, "bits/dim") == ["optimizer.lr=1", "optimizer.lr=2"]  # ± 0.025 each: 0.035 together


def test_a_mean_without_the_run_that_is_not_finite_is_not_the_best(tmp_path):
    for i, (lr, fid) in enumerate([(1, 1.0), (1, float("nan")), (2, 2.0), (2, 2.0), (3, 3.0), (3, 3.0)]):
        own = {"optimizer.lr": lr}
        write_cell(tmp_path, i, f"optimizer.lr={lr}", f"seed={i % 2}", seed=i % 2, settings=own, metrics=measured(fid))
    found = made(tmp_path)
    fids = column(found, "FID")
    assert [line.shown(fids) for line in found.lines] == ["1.000 [1 not finite]", "2.000 ± 0.000", "3.000 ± 0.000"]
    assert best(found, "FID") == ["optimizer.lr=2"]
    assert any("[not finite]" in note for note in found.notes)


def test_a_metric_that_has_no_rate_is_not_said_to_have_one_that_is_not_finite(tmp_path):
    points = {"bits_per_dim": {"value": 1.0}}
    write_cell(tmp_path, 0, "data=swiss_roll", choices={"data": "swiss_roll"}, metrics=points)
    write_cell(tmp_path, 1, "data=digits", choices={"data": "digits"}, metrics=measured(bits_per_dim=4.0))
    found = made(tmp_path)
    assert [line.aside(column(found, "rate")) for line in found.lines] == ["", ""]


def test_where_nothing_can_be_told_apart_nothing_is_best(tmp_path):
    for i, bits in enumerate((4.0, 4.01)):
        own = {"optimizer.lr": i}
        write_cell(tmp_path, i, f"optimizer.lr={i}", settings=own, metrics=measured(bits_per_dim=bits))
    assert best(made(tmp_path), "bits/dim") == []


def test_a_single_line_is_best_of_nothing(tmp_path):
    assert not made(write_run(tmp_path / "a", metrics=measured(fid=1.0))).best


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_sweep_shows_what_it_varies_and_who_does_not_say_shows_its_configuration(tmp_path):
    write_cell(
        tmp_path, 0, "objective=vlb", "logger=csv", "debug=smoke", choices={"objective": "vlb", "debug": "smoke"}
    )
    write_cell(tmp_path, 1, "logger=csv", "debug=smoke", "every.log=5", choices={"debug": "smoke"})
    write_cell(tmp_path, 2, "objective=hybrid", "logger=csv", "debug=smoke", status="refused", begun=False)
    found = made(tmp_path)
    assert found.settings == ["objective"]
    assert [line.settings["objective"] for line in found.lines] == ["vlb", "simple", "hybrid"]


def test_values_written_in_two_ways_are_one_configuration(tmp_path):
    write_cell(tmp_path, 0, "optimizer.lr=1e-3", "seed=1", seed=1, settings={"optimizer.lr": 0.001})
    write_cell(tmp_path, 1, "optimizer.lr=0.001", "seed=2", seed=2, settings={"optimizer.lr": 0.001})
    write_cell(tmp_path, 2, "optimizer.lr=0.0010", "seed=3", status="waiting", begun=False)
    assert [len(line.runs) for line in made(tmp_path).lines] == [3]


def test_devices_are_a_setting_where_a_sweep_varies_them(tmp_path):
    for i, devices in enumerate((1, 2)):
        write_cell(tmp_path / "s", i, f"trainer.devices={devices}", settings={"trainer.devices": devices})
        write_run(tmp_path / f"r{i}", settings={"trainer.devices": devices})
    assert made(tmp_path / "s").settings == ["trainer.devices"]
    assert len(made(tmp_path / "r0", tmp_path / "r1").lines) == 1


def test_runs_of_several_places_differ_by_configuration_groups_first(tmp_path):
    vlb = {"objective._target_": "ddpm.diffusion.objective.Vlb"}
    write_run(tmp_path / "a", choices={"objective": "vlb"}, settings={**vlb, "loader.num_workers": 3})
    write_run(tmp_path / "b", settings={"optimizer.lr": 0.5}, seed=5)
    write_cell(tmp_path / "s", 0, "schedule.T=50", settings={"schedule.T": 50, "timesteps.T": 50})
    assert made(tmp_path).settings == ["objective", "schedule.T", "optimizer.lr"]


def test_runs_of_two_sweeps_differ_by_configuration(tmp_path):
    for lr in (1, 2):
        write_cell(tmp_path / "s", lr, f"optimizer.lr={lr}", settings={"optimizer.lr": lr})
    write_cell(tmp_path / "t", 0, "optimizer.lr=1", choices={"objective": "vlb"}, settings={"optimizer.lr": 1})
    assert made(tmp_path).settings == ["objective", "optimizer.lr"]


def test_settings_that_differ_are_those_that_make_another_model(tmp_path):
    for seed, name in enumerate("ab"):
        hardware = {"trainer.devices": seed + 1, "loader.num_workers": seed}
        bookkeeping = {"keep": seed, "every": {"log": 10 + seed}}
        write_run(tmp_path / name, seed=seed, settings={"optimizer.lr": seed, **hardware, **bookkeeping})
    assert differences(collect.within([tmp_path])) == ["optimizer.lr"]


def test_an_experiment_stands_for_what_it_sets(tmp_path):
    eps = {"experiment": "table2_eps_simple"}
    mu = {"experiment": "table2_mu_vlb_fixed", "objective": "vlb"}
    write_run(tmp_path / "a", choices=eps)
    write_run(tmp_path / "b", choices=mu, settings={"optimizer.lr": 0.5})
    assert made(tmp_path).settings == ["experiment"]
    write_run(tmp_path / "c", choices=eps, settings={"optimizer.lr": 0.5})
    found = made(tmp_path)
    assert found.settings == ["experiment", "optimizer.lr"]
    assert found.lines[0].name == "table2_eps_simple optimizer.lr=0.001"


def test_a_line_is_called_by_its_options_and_by_key_and_value_where_an_option_alone_says_too_little(tmp_path):
    write_run(tmp_path / "a", choices={"experiment": "table2_mu_simple", "weighting": "none"})
    write_run(tmp_path / "b", choices={"weighting": "min_snr"})
    write_run(tmp_path / "c", choices={"weighting": "none"}, settings={"max_steps": 7})
    names = [line.name for line in made(tmp_path).lines]
    assert names[0] == "table2_mu_simple weighting=none max_steps=100"
    assert names[1] == "experiment=none min_snr max_steps=100"


def test_what_never_began_or_cannot_be_read_makes_no_columns(tmp_path):
    write_run(tmp_path / "a", metrics=measured(fid=1.0))
    write_cell(tmp_path / "s", 0, "objective=vlb", choices={"objective": "vlb"}, metrics=measured(fid=2.0))
    write_cell(tmp_path / "s", 1, "objective=hybrid", status="refused", begun=False)
    for name, fid in (("x", 5.0), ("y", 7.0)):
        (write_run(tmp_path / name, metrics=measured(fid=fid)) / "config.yaml").write_text("{")
    found = made(tmp_path)
    assert found.settings == ["objective"]
    assert [line.name for line in found.lines] == ["simple", "vlb", "hybrid", "(x)", "(y)"]


def test_what_a_sweep_varied_is_shown_beside_other_runs_too(tmp_path):
    for i, (experiment, lr) in enumerate((("table2_eps_simple", 0.1), ("table2_mu_simple", 0.2))):
        about = {"choices": {"experiment": experiment}, "settings": {"optimizer.lr": lr}}
        write_cell(tmp_path / "s", i, f"experiment={experiment}", f"optimizer.lr={lr}", **about)
    write_run(tmp_path / "a", choices={"experiment": "table2_mu_simple"}, settings={"optimizer.lr": 0.2})
    found = made(tmp_path)
    assert found.settings == ["experiment", "optimizer.lr"]
    assert [len(line.runs) for line in found.lines] == [2, 1]


SETTINGS = st.fixed_dictionaries(
    {"objective": st.sampled_from("ab"), "lr": st.integers(0, 2), "seed": st.integers(1, 3)}
)


@given(st.lists(SETTINGS, min_size=1, max_size=8), st.booleans())
def test_lines_part_the_runs_by_everything_but_the_seed(wanted, swept):
    runs = []
    for i, each in enumerate(wanted):
        config = {"choices": {"objective": each["objective"]}, "optimizer": {"lr": each["lr"]}, "seed": each["seed"]}
        said = {"objective": each["objective"], "optimizer.lr": str(each["lr"]), "seed": str(each["seed"])}
        runs.append(ReportedRun(Path(f"/s/{i}"), "finished", overrides=said if swept else None, config=config))
    lines = table.of(runs).lines
    assert sum(len(line.runs) for line in lines) == len(runs)
    assert len(lines) == len({(each["objective"], each["lr"]) for each in wanted})
    for line in lines:
        assert len({(run.setting("objective"), run.setting("optimizer.lr")) for run in line.runs}) == 1


# --- protocols -------------------------------------------------------------------------------------------------------


def two(tmp_path, *protocols, **metrics):
    for i, protocol in enumerate(protocols):
        values = measured(**{name: value + i for name, value in metrics.items()})
        about = {"objective": "ab"[i]}
        write_run(tmp_path / "ab"[i], choices=about, metrics=values, protocol={**protocol, "fingerprint": f"f{i}"})
    return made(tmp_path)


def test_the_compared_methods_own_parts_may_differ(tmp_path):
    sampler = {"sampler": {"name": "ancestral"}, "evaluations_per_sample": 1000, "timesteps": 4000}
    sampler |= {"guidance": {"name": "classifierfree", "scale": 1.0}, "condition": {"drop": 0.1}}
    found = two(tmp_path, {}, sampler, fid=2.0, bits_per_dim=4.0)
    assert best(found, "FID") == best(found, "bits/dim") == ["a"]
    assert "Protocols differ in timesteps: 1000 / 4000." in found.notes


@pytest.mark.parametrize(
    ("protocol", "note", "ranked"),
    [
        ({"num_samples": 40}, "num_samples: 1500 / 40", {"bits/dim"}),
        ({"bound": {"images": {"test": 297}, "evaluations": 10}}, "bound.evaluations: 50 / 10", {"IS", "FID"}),
        ({"feature_metrics": {"inception_score_splits": 5}}, "inception_score_splits: 10 / 5", {"FID", "bits/dim"}),
        ({"features": {"extractor": "vgg16"}}, "features.extractor: not said / vgg16", {"bits/dim"}),
        ({"quantiser": "floor(128 x + 128)"}, "quantiser: not said / floor(128 x + 128)", {"bits/dim"}),
        ({"fid_reference": "test"}, "fid_reference: not said / test", {"IS", "bits/dim"}),
        ({"bound": {"decoder": "exact", "evaluations": 50}}, "bound.decoder: not said / exact", {"IS", "FID"}),
        ({"condition": {"told": "labels"}}, "condition.told: not said / labels", {"IS", "FID"}),
        ({"precision": "bf16-mixed"}, "precision: not said / bf16-mixed", set()),
        ({"chunk": 7}, "chunk: not said / 7", set()),
        ({"data": "mnist"}, "data: digits 1500+297 1x8x8 / mnist", set()),
        ({"seed": 7}, "seed: not said / 7", set()),
        ({"invented": 7}, "invented: not said / 7", set()),
    ],
)
def test_what_was_measured_differently_is_not_ranked(tmp_path, protocol, note, ranked):
    found = two(tmp_path, {}, protocol, fid=2.0, inception_score=9.0, bits_per_dim=4.0)
    assert {title for title in ("IS", "FID", "bits/dim") if best(found, title)} == ranked
    assert any(note in each for each in found.notes)
    (void,) = [each for each in found.notes if "not ranked" in each]
    assert all(title in void for title in {"IS", "FID", "bits/dim"} - ranked)


def test_what_a_run_that_failed_measured_otherwise_does_not_matter(tmp_path):
    write_cell(
        tmp_path, 0, "objective=hybrid", status="diverged", metrics=measured(fid=1.0), protocol={"num_samples": 40}
    )
    found = two(tmp_path, {}, {}, fid=2.0)
    assert best(found, "FID") == ["a"]
    assert not any("num_samples" in note for note in found.notes)


def test_a_bound_at_every_t_is_one_measure_for_every_T(tmp_path):
    full = [{"timesteps": T, "bound": {"images": {"test": 297}, "evaluations": T}} for T in (1000, 4000)]
    assert best(two(tmp_path, *full, bits_per_dim=4.0), "bits/dim") == ["a"]
    full[0]["bound"]["draws_of_x_1"] = 11  # less noise in the same quantity
    assert best(two(tmp_path / "draws", *full, bits_per_dim=4.0), "bits/dim") == ["a"]


def test_as_many_evaluations_as_another_s_T_are_not_every_t(tmp_path):
    bounds = [{"timesteps": T, "bound": {"images": {"test": 297}, "evaluations": 1000}} for T in (1000, 4000)]
    found = two(tmp_path, *bounds, bits_per_dim=4.0)
    assert best(found, "bits/dim") == []
    assert any("bound.evaluations: every t / 1000" in note for note in found.notes)


def test_one_configuration_measured_in_two_ways_is_two_lines(tmp_path):
    for i, (name, fingerprint) in enumerate((("ddim", "f0"), ("ancestral", "f1"), ("ddim", "f0"))):
        protocol = {"sampler": {"name": name}, "fingerprint": fingerprint}
        write_run(tmp_path / str(i), seed=i, metrics=measured(fid=2.0), protocol=protocol)
    write_run(tmp_path / "not measured", seed=9, step=50)
    found = made(tmp_path)
    assert found.settings[-1] == "protocol"
    assert [(line.settings["protocol"], len(line.runs)) for line in found.lines] == [("f0", 3), ("f1", 1)]


# --- published values ------------------------------------------------------------------------------------------------

EXPECTED = {
    "recipe": {"source": "the recipe's paper", "fid": {"value": 9.0, "tolerance": 1}},
    "cifar10": {"source": "Table 2", "fid": {"value": 3.17, "tolerance": 0.3}},
}


def test_the_published_value_of_the_experiment_on_this_recipe_stands_beside_ours(tmp_path):
    row = {"recipe": "cifar10", "experiment": "table2_eps_simple"}
    verdicts = [{"metric": "fid", "verdict": verdict} for verdict in ("PASS", "not the published protocol: few steps")]
    for i, verdict in enumerate(verdicts):
        write_cell(tmp_path, i, f"seed={i}", seed=i, choices=row, expected=EXPECTED, metrics=measured(fid=3.0),
                   published=[verdict])  # fmt: skip
    found = made(tmp_path)
    (line,) = found.lines
    assert line.published(column(found, "FID")) == ("3.17", "PASS × 1, other protocol × 1")
    assert "Published: Table 2." in found.notes
    assert "Other protocol than the published one: few steps." in found.notes


def test_without_results_or_an_experiment_the_recipes_value_does(tmp_path):
    recipe = {"recipe": "cifar10"}
    write_run(tmp_path / "a", choices=recipe, expected=EXPECTED, metrics=measured(fid=9.5))
    write_run(tmp_path / "b", choices={**recipe, "objective": "vlb"}, expected=EXPECTED, step=50)
    found = made(tmp_path)
    assert [line.published(column(found, "FID")) for line in found.lines] == [("9.0", "")] * 2


def test_what_conf_expects_is_found(tmp_path):
    config = compose(["recipe=cifar10", "experiment=table2_eps_simple"])
    run = write_run(tmp_path / "a", metrics=measured(fid=3.0))
    (run / "config.yaml").write_text(OmegaConf.to_yaml(config))
    found = made(run)
    assert found.lines[0].published(column(found, "FID")) == ("3.17", "")


# --- time ------------------------------------------------------------------------------------------------------------


def test_minutes_are_a_sweeps_wall_clock_or_else_those_of_training(tmp_path):
    write_cell(tmp_path / "s", 0, "objective=vlb", seconds=90.0, metrics=measured(fid=1.0))
    found = made(tmp_path / "s")
    assert found.minutes_title == "minutes"
    assert found.minutes(found.lines[0]) == 1.5
    write_run(tmp_path / "r", metrics=measured(fid=1.0))
    found = made(tmp_path)
    assert found.minutes_title == "training minutes"
    assert [found.minutes(line) for line in found.lines] == [pytest.approx(1 / 6)]


@pytest.mark.parametrize(
    ("steps", "rates", "seconds"),
    [([10.0, 20.0], [64.0, 128.0], 15.0), ([10.0, 20.0], [0.0, 128.0], 5.0), ([10.0], [0.0], None), ([], [], None)],
)
def test_the_time_of_training_is_that_of_the_steps_whose_throughput_is_known(steps, rates, seconds):
    """Ten steps of 64 images take 10 s at 64 images per second."""
    history = {"train/images_per_second": (steps, rates)}
    assert (
        ReportedRun(Path("run"), "finished", config={"loader": {"batch_size": 64}}, history=history).training_seconds
        == seconds
    )


def test_runs_of_one_seed_count_once(tmp_path):
    """Two runs of seed 0, as a copy of a run is one: the mean is over seeds, 0 and 1."""
    for i, (seed, fid) in enumerate([(0, 2.0), (0, 2.2), (1, 3.1)]):
        write_run(tmp_path / f"{i}", seed=seed, metrics=measured(fid=fid))
    (line,) = made(tmp_path).lines
    (column,) = (column for column in made(tmp_path).columns if column.title == "FID")
    assert line.seeds == "2"
    assert line.mean(column) == pytest.approx((2.1 + 3.1) / 2)
    assert line.spread(column) == pytest.approx(0.5**0.5)
