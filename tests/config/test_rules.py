"""Combinations are judged by the classes that they build: a renamed copy of an option fares like the original."""

import itertools
import shutil
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from ddpm.config import groups, rules
from ddpm.config.compose import compose
from ddpm.config.errors import RefusedError
from ddpm.config.groups import CONF, group_names, options_of

OTHERWISE = ("base", "recipe", "experiment", "debug", "trainer", "logger", "callbacks", "converter", "figure")
COPIED = [group for group in group_names() if group not in OTHERWISE]
AXES = ("objective", "variance", "weighting", "network", "data")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """A user's folder with a copy of every option of every group: `copy_of_eps` beside our `eps`."""
    conf = tmp_path / "conf"
    for group in COPIED:
        (conf / group).mkdir(parents=True)
        for option in options_of(group):
            shutil.copy(CONF / group / f"{option}.yaml", conf / group / f"copy_of_{option}.yaml")
    monkeypatch.setenv(groups.OWN, str(conf))
    return conf


def verdict(*overrides):
    """The refusal, with the words of a copy put back to the original's; None where there is none."""
    try:
        compose(overrides)
    except RefusedError as error:
        return str(error).partition(": use ")[0].replace("copy_of_", "")
    return None


@pytest.mark.parametrize(
    ("group", "beside"), [("timesteps", "objective=vlb"), ("data", "condition=label"), ("network", "data=cifar10")]
)
def test_a_class_that_states_nothing_is_not_refused(group, beside, tmp_path, monkeypatch):
    """It may well be able to: what is not known is no reason."""
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("_target_: own.Mine\n")
    monkeypatch.setenv(groups.OWN, str(tmp_path))
    assert rules.refuse(compose([f"{group}=mine", beside])) is None


def test_what_a_network_cannot_be_told():
    config, images = compose(["recipe=swiss_roll"]), compose(["condition=image"])
    config.condition, config.choices.condition = images.condition, "image"
    assert "network=mlp cannot be told" in rules.refuse(config)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "transformer-engine", "transformer-engine-float16"])
def test_weights_of_16_bits_are_refused(precision):
    with pytest.raises(RefusedError, match=r"use trainer\.precision=bf16-mixed"):
        compose([f"trainer.precision={precision}"])


@pytest.mark.parametrize(
    ("recipe", "groups"),
    [
        ("digits", AXES),  # those that rules look at
        pytest.param("digits", COPIED, marks=pytest.mark.slow),
        pytest.param("swiss_roll", COPIED, marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_a_renamed_copy_of_every_option_is_judged_like_the_original(copies, recipe, groups):
    refused = 0
    for group in groups:
        for option in (name for name in options_of(group) if not name.startswith("copy_of_")):
            original = verdict(f"recipe={recipe}", f"{group}={option}")
            assert verdict(f"recipe={recipe}", f"{group}=copy_of_{option}") == original, (group, option)
            refused += original is not None
    assert refused >= 5


@pytest.mark.slow
def test_two_renamed_axes_are_judged_like_the_originals(copies):
    for first, second in itertools.combinations(("objective", "variance", "weighting"), 2):
        for a, b in itertools.product(*([o for o in options_of(g) if "copy" not in o] for g in (first, second))):
            words = (f"{first}={a}", f"{second}={b}")
            copied = (f"{first}=copy_of_{a}", f"{second}=copy_of_{b}")
            assert verdict(*copied) == verdict(*words), words


@pytest.mark.long
def test_what_a_refusal_recommends_is_accepted():
    for overrides in (["variance=learned"], ["objective=hybrid"], ["objective=vlb", "weighting=min_snr"],
                      ["network=mlp"], ["recipe=swiss_roll", "network=iddpm"], ["recipe=swiss_roll", "condition=label"],
                      ["guidance=cfg"], ["condition=label", "condition.drop=0", "guidance=cfg"]):  # fmt: skip
        with pytest.raises(RefusedError) as refusal:
            compose(overrides)
        ways_out = str(refusal.value).partition(": use ")[2].replace(",", "").replace(" or ", " ").split()
        assert ways_out
        for word in ways_out:
            rest = [text for text in overrides if text.partition("=")[0] != word.partition("=")[0]]
            assert compose([*rest, word]).choices, word


def test_a_rule_reads_facts_and_no_names():
    """The same classes under names that mislead."""
    config = compose([])
    config.choices = {**config.choices, "variance": "learned", "objective": "hybrid", "data": "swiss_roll"}
    assert rules.refuse(config) is None
    config.variance = OmegaConf.create({"_target_": "ddpm.diffusion.variance.LearnedRange"})
    assert "no gradient" in rules.refuse(config)


@pytest.mark.long
def test_refusals_wait_for_no_torch():
    code = (
        "import sys\nfrom ddpm.config.compose import compose\nfrom ddpm.config.errors import RefusedError\n"
        "try: compose({!r})\nexcept RefusedError: assert 'torch' not in sys.modules\nelse: raise SystemExit('accepted')"
    )
    for words in (["variance=learned"], ["network=mlp"], ["recipe=swiss_roll", "network=unet"]):
        subprocess.run([sys.executable, "-c", code.format(words)], check=True)
