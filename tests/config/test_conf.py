"""Every option of conf/ composes; every recipe and experiment builds and takes two optimizer steps, at reduced size."""

import contextlib
import inspect

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from ddpm import build
from ddpm.config.compose import compose
from ddpm.config.errors import RefusedError, RequestError
from ddpm.config.groups import ALL_LOADED, CONF, group_names, options_of
from ddpm.instantiate import instantiate
from ddpm.randomness import generator

SMALL = {
    "unet": ["network.channels=32", "network.num_res_blocks=1"],
    "mlp": ["network.channels=16"],
}
EXPERIMENTS = options_of("experiment")


def two_steps(overrides):
    config = compose(overrides)
    images = build.dataset(config)
    size = 2 ** (len(config.network.channel_mult) - 1) if "channel_mult" in config.network else 1
    if len(images.shape) == 3:
        images.shape = (images.shape[0], size, size)  # the smallest that the network can halve
    module = build.module(config, images)
    optimizer = torch.optim.Adam(module.p.parameters(), 1e-4)
    p = module.p.given(build.conditioning(config).shown(images, 2))
    draw = generator("cpu", 0)
    for _ in range(2):
        x_0 = (torch.rand((2, *images.shape), generator=draw) * 255).round() / 127.5 - 1
        t, weight = module.timesteps.sample(2, draw)
        loss = (weight * module.objective(p, x_0, t, torch.randn(x_0.shape, generator=draw))).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(w.grad is not None and w.grad.isfinite().all() for w in module.p.parameters())
        optimizer.step()


@pytest.mark.parametrize("recipe", options_of("recipe"))
@pytest.mark.long
def test_every_recipe_builds_and_steps(recipe):
    two_steps([f"recipe={recipe}", *SMALL["mlp" if recipe == "swiss_roll" else "unet"]])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.long
def test_every_experiment_builds_and_steps(experiment):
    two_steps([f"experiment={experiment}", *SMALL["unet"]])


NO_CHOICE = ("base", "recipe", "converter", "callbacks")


@pytest.mark.parametrize("recipe", ["digits", pytest.param("swiss_roll", marks=pytest.mark.slow)])  # a U-Net and an MLP
@pytest.mark.parametrize("group", [g for g in group_names() if g not in (*NO_CHOICE, *ALL_LOADED)])
@pytest.mark.long
def test_every_option_is_built_or_refused_for_its_combination(recipe, group):
    for option in options_of(group):
        try:
            config = compose([f"recipe={recipe}", f"{group}={option}"])
        except RefusedError:
            assert group in ("variance", "objective", "weighting", "network", "data", "condition", "guidance")
            continue
        assert config.choices[group] == option
        for part in ("sampler", "objective", "prediction", "variance", "timesteps", "schedule"):
            instantiate(config[part], object)
        unet_alone = recipe == "swiss_roll" and "dropout" in config.network
        refused = pytest.raises(ValueError, match="MLP has no setting") if unet_alone else contextlib.nullcontext()
        with torch.device("meta"), refused:
            build.network(config, build.dataset(config))


@pytest.mark.long
def test_the_sampler_that_is_chosen_is_the_one_of_its_file():
    for recipe in options_of("recipe"):
        for option in ("ancestral", "ddim", "dpm_solver"):
            file = OmegaConf.load(CONF / "sampler" / f"{option}.yaml")
            chosen = compose([f"recipe={recipe}", f"sampler={option}"]).sampler
            assert {**chosen, "steps": None} == {**file, "steps": None}  # how many steps may be the recipe's


@pytest.mark.parametrize(
    "option",
    [each for each in options_of("sampler") if "_target_" in OmegaConf.load(CONF / "sampler" / f"{each}.yaml")],
)
def test_a_sampler_that_is_made_in_python_has_the_settings_of_its_file(option):
    file = dict(OmegaConf.load(CONF / "sampler" / f"{option}.yaml"))
    arguments = inspect.signature(get_class(file.pop("_target_"))).parameters.values()
    assert {each.name: each.default for each in arguments if each.kind != each.KEYWORD_ONLY} == file


@pytest.mark.long
def test_parameter_counts_of_the_recipes():
    def count(*overrides):
        config = compose(overrides)
        with torch.device("meta"):
            network = build.network(config, build.dataset(config))
        return sum(weights.numel() for weights in network.parameters())

    assert count("recipe=cifar10") == 35_746_307
    assert count("recipe=cifar10", "experiment=table2_eps_vlb_learned") == 35_749_766
    assert count("recipe=lsun_church") == 113_673_219
    assert count("recipe=lsun_bedroom_large") == 255_677_955


def test_an_experiment_is_a_change_on_the_ablation_axes_alone():
    axes = {"prediction", "objective", "variance", "schedule", "timesteps", "weighting", "sampler"}
    for experiment in EXPERIMENTS:
        content = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
        chosen = {key.removeprefix("override /") for default in content.defaults for key in default}
        assert chosen <= axes
        assert set(content) <= {"defaults", "expected", "schedule", "network", "weighting", "sampler", "optimizer"}
        assert content.optimizer == {"muon_lr": None}  # Adam, as in the papers, whatever the recipe has


def test_published_values_carry_source_and_tolerance():
    expected = compose(["recipe=cifar10", "experiment=table2_eps_simple"]).expected.cifar10
    assert (expected.fid.value, expected.inception_score.value, expected.bits_per_dim.value) == (3.17, 9.46, 3.75)
    assert "Table 2" in expected.source
    tolerances = (expected.fid.tolerance, expected.inception_score.tolerance, expected.bits_per_dim.tolerance)
    assert tolerances == (0.3, 0.3, 0.05)


@pytest.mark.parametrize("target", ["os.system", "ddpm.data.digits.torch.load", "builtins.eval"])
def test_only_targets_that_conf_names_are_built(target):
    with pytest.raises(RequestError, match="not one of conf"):
        instantiate(OmegaConf.create({"_target_": target}), object)
    nested = OmegaConf.create({"_target_": "ddpm.diffusion.objective.Simple", "weighting": {"_target_": target}})
    with pytest.raises(RequestError, match="not one of conf"):
        instantiate(nested, object)


@pytest.mark.parametrize("overrides", [["recipe=swiss_roll"], ["evaluation.bits_per_dim.decoder=exact"]])
def test_validation_and_evaluation_measure_with_the_same_decoder(overrides):
    config = compose(overrides)
    module = build.module(config, build.dataset(config))
    assert module.p_ema.decoder is module.p.decoder
