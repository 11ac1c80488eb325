"""What kind of setting a key is, said once, and what follows from it."""

import pytest
from omegaconf import OmegaConf

from ddpm.config import roles
from ddpm.config.compose import compose
from ddpm.config.groups import group_names, options_of
from ddpm.config.roles import ROLES, Role, role


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def listed(key):
    return any(key == known or key.startswith(f"{known}.") for known in ROLES)


@pytest.mark.parametrize("config_name", ["train", "evaluate"])
@pytest.mark.parametrize("recipe", options_of("recipe"))
@pytest.mark.long
def test_every_key_and_every_group_has_a_role(recipe, config_name):
    config = OmegaConf.to_container(compose([f"recipe={recipe}"], config_name), throw_on_missing=False)
    assert not [key for key in leaves(config) if not listed(key)]
    assert not [group for group in group_names() if not listed(group)]


def test_a_key_that_nobody_listed_counts_as_part_of_the_model():
    assert role("plugin.strength") == Role.MODEL | Role.TRAINING
    assert roles.fixed_by_the_run("plugin.strength")
    assert not roles.open_to_evaluation("plugin.strength")


@pytest.mark.parametrize(
    ("key", "fixed"),
    [
        ("network.channels", True), ("prediction", True), ("objective.weight", True), ("optimizer.lr", True),
        ("ema.decay", True), ("ema.lengths", True), ("data.size", True), ("loader.batch_size", True), ("seed", True),
        ("recipe", True), ("trainer.precision", True), ("evaluation.bits_per_dim.decoder", True), ("condition", True),
        ("condition.drop", True),
        ("max_steps", False), ("trainer.devices", False), ("data.path", False), ("loader.num_workers", False),
        ("sampler.steps", False), ("features", False), ("evaluation.seed", False), ("evaluation.metrics", False),
        ("stop.patience", False), ("best.metric", False), ("every.metrics", False), ("validation.metrics", False),
        ("network.checkpointing", False),
        ("every.samples", False), ("logger", False), ("name", False), ("evaluate_after", False),
    ],
)  # fmt: skip
def test_what_resuming_may_change(key, fixed):
    assert roles.fixed_by_the_run(key) == fixed


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ("sampler.steps", True), ("ema", True), ("ema.decay", False), ("ema.lengths", False),
        ("features.weights", True), ("evaluation.kid.subsets", True), ("ckpt", True),
        ("evaluation.bits_per_dim.decoder", True), ("trainer.devices", True), ("data.path", True), ("figures", True),
        ("seed", False), ("max_steps", False), ("schedule.T", False), ("loader.batch_size", False), ("resume", False),
        ("every.log", False), ("recipe", False), ("data.size", False), ("condition", False), ("condition.drop", False),
    ],
)  # fmt: skip
def test_what_an_evaluation_takes(key, taken):
    assert roles.open_to_evaluation(key) == taken


def test_the_message_names_the_uppermost_keys_that_an_evaluation_takes():
    keys = roles.evaluation_keys()
    assert {"sampler", "features", "evaluation", "trainer", "ckpt", "out", "figures", "data.path"} <= {*keys}
    assert "evaluation.seed" not in keys


def matters(key, metric):
    return roles.matters_to(key, of_bound=metric == "bits_per_dim", own=metric, metrics=("fid", "kid", "bits_per_dim"))


@pytest.mark.parametrize(
    ("key", "fid", "bound"),
    [
        ("network.channels", True, True), ("optimizer.lr", True, True), ("max_steps", True, True),
        ("data.size", True, True),
        ("sampler.steps", True, False), ("features.name", True, False),
        ("evaluation.num_samples", True, False),
        ("evaluation.bits_per_dim.evaluations", False, True), ("evaluation.split", False, True),
        ("evaluation.precision", True, True), ("evaluation.kid.subsets", False, False),
        ("ema.decay", True, True), ("ema.lengths", False, False), ("ema.length", True, True),
        ("evaluation.seed", False, False), ("seed", False, False), ("trainer.precision", False, False),
        ("data.path", False, False), ("features.weights", False, False), ("evaluation.metrics", False, False),
        ("name", False, False),
    ],
)  # fmt: skip
def test_what_keeps_a_number_from_being_compared(key, fid, bound):
    assert (matters(key, "fid"), matters(key, "bits_per_dim")) == (fid, bound)


@pytest.mark.parametrize(
    ("key", "apart"),
    [("prediction", True), ("max_steps", True), ("sampler.steps", True), ("trainer.devices", True),
     ("stop.patience", True), ("best.metric", False), ("validation.num_samples", False),
     ("seed", False), ("evaluation.seed", False), ("out", False), ("name", False), ("every.log", False),
     ("logger", False)],
)  # fmt: skip
def test_what_makes_a_line_of_a_report(key, apart):
    assert roles.tells_configurations_apart(key) == apart
