"""What a recipe says of its own classes is no setting of another class; what an experiment or the user says is."""

import pytest
from omegaconf import OmegaConf

from ddpm.config import groups
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.grammar import dotted
from ddpm.config.recipes import PRESETS_OVER_RECIPES, keys_of, made_for_other_data, proposes, said_by
from ddpm.config.saved import compose_saved

PRESETS = [(group, option) for group in ("recipe", *PRESETS_OVER_RECIPES) for option in groups.options_of(group)]


@pytest.mark.long
@pytest.mark.parametrize(("group", "option"), PRESETS)
def test_what_is_composed_is_what_a_preset_says(group, option):
    """No other file of conf/ overrides a value that a recipe, an experiment or debug=smoke sets."""
    said, composed = OmegaConf.load(groups.file_of(group, option)), compose([f"{group}={option}"])
    said.pop("defaults", None)
    for key in dotted(OmegaConf.to_container(said)):
        value, found = (OmegaConf.select(each, key) for each in (said, composed))
        if not OmegaConf.is_dict(value):
            assert found == value, key


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A schedule that takes a length beside T, and a sampler that takes no number of steps."""
    for group, settings in (("schedule", "T: 30\nlength: 9\n"), ("sampler", "level: 1\n")):
        file = tmp_path / "conf" / group / "mine.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"_target_: own.{group}\n{settings}")
    monkeypatch.setenv(groups.OWN, str(tmp_path / "conf"))


@pytest.mark.usefixtures("own")
def test_the_recipes_settings_go_and_those_of_experiment_and_user_stay():
    mine = {"_target_": "own.schedule", "length": 9}
    base = ["recipe=photos", "schedule=mine"]
    assert {"T", "beta_1", "beta_T"} < {*compose(["recipe=photos"]).schedule}
    assert compose([*base, "debug=smoke"]).schedule == {**mine, "T": 20}
    assert compose([*base, "experiment=iddpm_1k_linear_simple"]).schedule == {**mine, "T": 1000}
    said = compose([*base, "schedule.T=700", "schedule.length=3"])
    assert said.schedule == {**mine, "length": 3, "T": 700}


@pytest.mark.usefixtures("own")
def test_the_debugging_presets_settings_are_none_of_a_class_that_has_not_such():
    mine = {"_target_": "own.sampler", "level": 1}
    assert compose(["debug=smoke"]).sampler.steps == 5
    assert compose(["sampler=mine", "debug=smoke"]).sampler == mine
    assert compose(["sampler=mine", "debug=smoke", "sampler.steps=3"]).sampler == {**mine, "steps": 3}


def test_the_recipes_settings_of_a_schedule_are_none_of_an_experiments():
    assert compose([]).schedule.snr_scale == 4
    assert compose(["experiment=table2_eps_simple"]).schedule == compose(["recipe=cifar10"]).schedule
    assert compose(["recipe=photos", "experiment=iddpm_4k_cosine_vlb"]).schedule == {
        "_target_": "ddpm.diffusion.schedule.cosine", "T": 4000, "snr_scale": 1.0
    }  # fmt: skip


def test_nothing_of_a_recipe_is_left_in_what_an_experiment_chooses_instead():
    """Keys that both schedules know have the file's value: T and betas of photos' quadratic one are nobody else's."""
    row = compose(["recipe=photos", "experiment=table2_eps_vlb_fixed"])
    assert row.schedule == compose(["recipe=cifar10"]).schedule
    assert row.schedule.T == 1000
    assert (row.choices.variance, row.choices.timesteps) == ("fixed_large", "uniform")
    assert compose(["recipe=photos", "experiment=table2_eps_vlb_fixed", "schedule.T=70"]).schedule.T == 70
    assert compose(["recipe=photos", "schedule=linear"]).schedule.T == 500  # a class that the user compares
    said = compose(["recipe=photos", "experiment=table2_eps_vlb_fixed", "schedule=cosine"])
    assert said.schedule.T == 500  # here, too: what the experiment would have chosen is of no account


def test_the_recipes_own_option_keeps_the_recipes_settings():
    assert compose(["recipe=swiss_roll", "network=mlp"]).network == compose(["recipe=swiss_roll"]).network
    assert compose(["recipe=swiss_roll"]).network.num_res_blocks == 3


def test_what_a_run_began_with_is_not_dropped_when_it_is_composed_again(tmp_path, monkeypatch):
    """An experiment of the user's chooses a network, and the width was typed when the run began."""
    file = tmp_path / "conf" / "experiment" / "wide.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ndefaults:\n  - override /network: mlp\n")
    monkeypatch.setenv(groups.OWN, str(tmp_path / "conf"))
    config = compose(["recipe=digits", "data=swiss_roll", "experiment=wide", "network.channels=64"])
    again = compose_saved(OmegaConf.to_container(config), ["max_steps=7"])
    assert again.network == config.network == {"_target_": "ddpm.networks.mlp.MLP", "channels": 64}


def test_keys_of_an_option_are_those_of_what_it_builds_on_too():
    assert {"_target_", "steps", "eta", "order", "spacing", "times"} == keys_of("sampler", "dpm_solver_sde")
    assert {"channels", "groups"} < keys_of("recipe", "digits_conditional", "network")


def test_a_command_line_says_what_its_experiment_says():
    said = said_by(["debug=smoke", "optimizer.lr=1"])
    assert {"debug", "optimizer.lr", "schedule.T", "max_steps"} <= said
    assert "optimizer.warmup" not in said


def test_a_proposal_is_only_made_where_a_recipe_has_a_budget():
    assert proposes(["recipe=own"])
    assert proposes(["recipe=own", "budget=1h"])
    assert not proposes(["recipe=own", "budget=null"])
    assert not proposes(["recipe=digits"])
    assert not proposes([])
    with pytest.raises(RequestError, match="budget belongs to recipe=own: add recipe=own"):
        compose(["budget=1h"])


def test_data_of_another_recipe_are_pointed_to_one_of_their_own():
    for words, expected in {
        ("data=folder", "data.path=mine"): "made for data=digits, not for data=folder: say which is meant, recipe=own",
        ("data=cifar10",): "say which is meant, recipe=cifar10",
    }.items():
        assert expected in made_for_other_data(compose(words), words)
    for words in (
        ["recipe=digits", "data=folder", "data.path=mine"],
        ["recipe=digits", "data=cifar10"],
        ["data=given"],
    ):
        assert made_for_other_data(compose(words), words) is None
