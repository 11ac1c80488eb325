"""What an earlier version saved is read as this one would have written it."""

import copy

import pytest

from ddpm.config.compose import compose
from ddpm.config.moved import GROUPS, TARGETS, translated, translated_overrides
from ddpm.config.targets import allowed_targets


def test_targets_and_keys_move_and_the_argument_stays():
    saved = {
        "data": {"_target_": "ddpm.data.digits.Digits", "batch_size": 32, "num_workers": 1, "split": "both"},
        "network": {"_target_": "ddpm.unet.UNet", "channels": 8},
        "evaluation": {"fid_split": "test"},
        "list": [{"_target_": "ddpm.features.Digits"}, "ddpm.unet.UNet"],
    }
    before = copy.deepcopy(saved)
    assert translated(saved) == {
        "data": {"_target_": "ddpm.data.digits.Digits"},
        "network": {"_target_": "ddpm.networks.unet.UNet", "channels": 8, "checkpointing": False, "patch_size": 1},
        "evaluation": {"fid_split": "test", "split": "both"},
        "loader": {"batch_size": 32, "num_workers": 1},
        "list": [{"_target_": "ddpm.metrics.features.Digits"}, "ddpm.unet.UNet"],
    }
    assert saved == before
    assert translated(translated(saved)) == translated(saved)


def test_what_is_stated_as_it_is_now_stays():
    stated = {
        "data": {"batch_size": 32},
        "loader": {"batch_size": 8},
        "sampler": {"_target_": "ddpm.samplers.ddim.DDIM", "times": [9, 1]},
        "network": {"_target_": "ddpm.networks.unet.UNet", "checkpointing": True, "patch_size": 2},
    }
    assert translated(stated) == {**stated, "data": {}}


def test_a_group_that_there_was_not_has_the_option_that_was_the_only_one():
    saved = {"choices": {"data": "digits"}, "data": {}, "ema": {"decay": 0.98}}  # the recipe's
    now = translated(saved)
    assert now["choices"] == {"data": "digits", **GROUPS}
    for group, option in GROUPS.items():
        assert now[group] == compose([f"{group}={option}"])[group]
    assert translated(now) == now
    chosen = {"choices": {"condition": "label"}, "condition": {"drop": 0.5}}
    assert translated(chosen)["condition"] == {"drop": 0.5}
    assert translated(chosen)["choices"]["condition"] == "label"


def test_a_sampler_of_before_takes_times_and_somebody_else_s_is_left_alone():
    ours, theirs = {"_target_": "ddpm.diffusion.sampler.DDIM", "steps": 5}, {"_target_": "other.Sampler"}
    assert translated({"sampler": ours})["sampler"] == {
        "_target_": "ddpm.samplers.ddim.DDIM",
        "steps": 5,
        "times": None,
    }
    assert translated({"sampler": theirs})["sampler"] == theirs


def test_what_a_target_became_is_one_of_conf_s():
    for now in TARGETS.values():
        assert any(target.startswith(now) for target in allowed_targets()), now


def test_overrides_of_an_earlier_command_line():
    said = ["data.batch_size=32", "data.path='a b'", "seed=1,2", "data.split"]
    assert translated_overrides(said) == ["loader.batch_size=32", "data.path='a b'", "seed=1,2", "evaluation.split"]


@pytest.mark.parametrize(
    "strange", [{"data": 3}, {"data": {"split": 1}, "evaluation": None}, {"loader": 1, "data": {"batch_size": 2}}, {}]
)
def test_strange_configurations_pass_through(strange):
    translated(strange)


def test_a_bottomless_configuration_is_refused():
    tree = {}
    for _ in range(100_000):
        tree = {"a": tree}
    with pytest.raises(ValueError, match="nested deeper"):
        translated(tree)
