"""Paths survive Hydra's grammar, wrong requests get one line, and no question imports torch."""

import subprocess
import sys

import pytest
from commands import ROOT
from filelock import FileLock
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from random_checkpoint import saved

from ddpm.commands import evaluate, train
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import as_typed, quote_paths
from ddpm.config.saved import compose_saved, plain

PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
    lambda path: path not in ("null", "auto") and not path.startswith("~")
)


@given(PATHS)
@example("runs/a=b, c [d] {e} 'f' \"g\" \\")
@example("${oc.env:HOME}")
@example("\\'")
@example("\\\\${x}")
@example("C:\\dir\\")
@example("\\\n")
@example("über/日本.ckpt")
def test_any_path_reaches_the_configuration_as_it_was_typed(path):
    (quoted,) = quote_paths([f"ckpt={path}"])
    override = OverridesParser.create().parse_override(quoted)
    assert not override.is_sweep_override()
    assert OmegaConf.create({"ckpt": override.value()}).ckpt == path
    assert as_typed([quoted, "seed=1"]) == [f"ckpt={path}", "seed=1"]  # for the command line of a sweep's run


def test_home_is_expanded_and_other_keys_are_left_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert quote_paths(["out=~/runs", "seed=1,2", "resume=null"]) == [
        "out='/home/ada/runs'",
        "seed=1,2",
        "resume=null",
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objectiv=vlb"], "did you mean objective"),
        (["max_step=3"], "did you mean max_steps"),
        (["batch_size=8"], "did you mean loader.batch_size?"),
        (["T=10"], "did you mean schedule.T or timesteps.T"),
        (["epochs=3"], "did you mean max_steps"),
        (["checkpoint=a.ckpt"], "did you mean init or resume"),
        (["optimizer.lrr=1"], "did you mean optimizer.lr"),
        (["network.chanels=64"], "did you mean network.channels"),
        (["objective=vbl"], "did you mean vlb"),
        (["objective=foo"], "options: hybrid, simple, vlb"),
        (["experiment=nothing"], "options:"),
        (["max_steps"], "KEY=VALUE"),
        (["optimizer.lr=[1"], "cannot read"),
        (["max_steps=0"], "at least 1"),
        (["max_steps=-5"], "at least 1"),
        (["max_steps=many"], "whole number"),
        (["max_steps=true"], "whole number"),
        (["max_steps=1.5"], "whole number"),
        (["~max_steps"], "whole number"),
        (["~schedule.T"], "~schedule.T takes away what is needed"),
        (["~network"], "~network: there must be one; options: iddpm, mlp, unet"),
        (["sampler.spacing=karras", "sampler.times=t.json"], "has no effect beside sampler.times=t.json"),
        (["loader.batch_size=0"], "at least 1"),
        (["schedule.T=1"], "at least 2"),
        (["optimizer.lr=0"], "positive"),
        (["optimizer.lr=.inf"], "positive"),
        (["optimizer.grad_clip=-1"], "positive"),
        (["ema.decay=1"], "[0, 1)"),
        (["evaluation.split=dev"], "train, test or both"),
        (["evaluation.num_samples=1"], "at least 2"),
        (["sampler.steps=1001"], "use at most"),
        (["trainer.precision=bf16-true"], "bf16-mixed"),
        (["trainer.compile=fast"], "reduce-overhead"),
        (["trainer.channels_last=maybe"], "true, false or auto"),
        (["trainer.resident=1"], "true, false or auto"),
        (["variance=learned"], "objective=hybrid"),
        (["objective=hybrid"], "variance=learned_range"),
        (["objective=vlb", "weighting=min_snr"], "weighting=none"),
        (["data=swiss_roll"], "network=mlp"),
        (["network=mlp"], "network=unet"),
        (["max_steps=1.5e0"], "whole number"),
        (["network.channel_mult=[1,1.5]"], "whole numbers"),
        (["data.path=pictures"], "data.path belongs to data=celeba_hq or data=cifar10 or"),
        (
            ["sampler=ancestral", "sampler.eta=1"],
            "belongs to sampler=ddim or sampler=ddim_eta1 or sampler=dpm_solver or sampler=dpm_solver_sde: add the one",
        ),
        (["+extra=1"], "no setting 'extra'"),
        (["+optimizer.beta=1"], "no setting 'optimizer.beta'"),
    ],
)
@pytest.mark.long
def test_a_wrong_request_is_one_line(overrides, message):
    with pytest.raises(RequestError) as refusal:
        compose(overrides)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_command_line_wins_over_debug_over_experiment_over_recipe():
    def settled(*overrides):
        config = compose(overrides)
        return config.network.dropout, config.schedule.T, config.max_steps

    recipe, experiment, debug = "recipe=cifar10", "experiment=iddpm_4k_cosine_simple", "debug=smoke"
    own = ("network.dropout=0.7", "schedule.T=30", "max_steps=3")
    words = (recipe, experiment, debug, *own)
    assert settled(recipe) == (0.1, 1000, 800_000)
    assert settled(recipe, experiment) == (0.3, 4000, 800_000)
    assert settled(recipe, experiment, debug) == (0.3, 20, 6)
    assert settled(*words) == settled(*reversed(words)) == (0.7, 30, 3)  # in whichever order they are said


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("max_steps=1e3", "max_steps", 1000),
        ("max_steps=12.0", "max_steps", 12),
        ("sampler.steps=5e1", "sampler.steps", 50),
        ("sampler=ancestral sampler.steps=5e1", "sampler.steps", 50),  # null by default
        ("optimizer={warmup:1e2,lr:1.0}", "optimizer.warmup", 100),
        ("recipe=swiss_roll data.train_size=1e4", "data.train_size", 10_000),  # whole by its default
        ("evaluation.kid.subsets=1e1", "evaluation.kid.subsets", 10),
        ("network.channel_mult=[1.0,2e0]", "network.channel_mult", [1, 2]),
        ("optimizer.lr=1.0", "optimizer.lr", 1.0),
        ("seed=1 evaluation.num_samples=5e4", "evaluation.num_samples", 50_000),
    ],
)
@pytest.mark.long
def test_a_whole_number_may_be_written_as_a_float(override, key, value):
    config = compose(override.split())
    found = OmegaConf.select(OmegaConf.create(OmegaConf.to_container(config)), key)
    assert found == value
    assert repr(found) == repr(value)
    saved = compose_saved(OmegaConf.to_container(config), [f"{key}={value}"])  # a run that goes on is the same
    assert OmegaConf.to_container(saved) == OmegaConf.to_container(config) | {"resume": None}


def test_choices_name_the_option_of_every_group():
    choices = compose(["objective=vlb"]).choices
    assert choices.objective == "vlb"
    assert choices.prediction == "v"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective=vlb", "checkpoint's"),
        ("schedule.T=10", "checkpoint's"),
        ("network.channels=64", "checkpoint's"),
        ("evaluation.samples=3", "did you mean"),
        ("sampler=dim", "did you mean ddim"),
        ("sampler.steps=5000", "use at most"),
    ],
)
def test_an_evaluation_leaves_the_model_what_it_is(override, message):
    base = OmegaConf.to_container(compose(["debug=smoke"]))
    with pytest.raises(RequestError, match=message):
        compose_evaluation(base, [override])


def test_an_evaluation_starts_from_the_checkpoints_own_configuration():
    base = OmegaConf.to_container(compose(["sampler=ddim", "sampler.eta=0.5", "sampler.steps=9", "schedule.T=77"]))
    config = compose_evaluation(base, ["sampler.steps=7", "ckpt='a b'"])
    assert (config.sampler.eta, config.sampler.steps, config.schedule.T, config.ckpt) == (0.5, 7, 77, "a b")
    assert "eta" not in compose_evaluation(base, ["sampler=ancestral"]).sampler


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.long
def test_questions_are_answered_without_torch(script, arguments, workspace):
    code = f"import sys, runpy; sys.argv = {[script, *arguments]!r}; sys.path.insert(0, {str(ROOT)!r})\n"
    code += f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
    code += "finally: assert 'torch' not in sys.modules, 'torch was imported'"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workspace)
    assert answer.returncode == 0, answer.stderr
    assert "sampler" in answer.stdout
    assert not list(workspace.iterdir())


@pytest.mark.parametrize("words", [["schedule=linear"], ["experiment=table2_eps_simple", "schedule.T=900"]])
def test_the_configuration_that_is_printed_is_the_runs(words, capsys):
    assert train.main([*words, "--cfg", "job"]) == 0
    assert OmegaConf.create(capsys.readouterr().out) == compose(words)


def test_the_configuration_that_is_printed_is_that_of_the_run_that_goes_on(run_folder, capsys):
    """Also while a process is at work in the run's folder: nothing is written there."""
    files = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    capsys.readouterr()
    with FileLock(run_folder / ".lock"):
        assert train.main(["resume=run", "max_steps=9", "every.log=2", "--cfg", "job"]) == 0
    printed, saved = OmegaConf.create(capsys.readouterr().out), OmegaConf.load(run_folder / "config.yaml")
    assert (printed.max_steps, printed.every.log, printed.out) == (9, 2, str(run_folder))
    assert printed.network == saved.network != compose([]).network
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*") if path.name != ".lock"} == {
        path: time for path, time in files.items() if path.name != ".lock"
    }


def test_the_configuration_that_is_printed_begins_with_anothers_model(workspace, capsys):
    saved("a.ckpt", "schedule.T=900")
    assert train.main(["init=a.ckpt", "seed=7", "--cfg", "job"]) == 0
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (printed.schedule.T, printed.seed, printed.init) == (900, 7, "a.ckpt")


def test_the_configuration_that_is_printed_is_the_checkpoints(workspace, capsys):
    saved("a.ckpt", "schedule.T=90", "sampler.steps=9")
    evaluate.main(["ckpt=a.ckpt", "sampler.steps=7", "--cfg", "job"])
    printed = OmegaConf.create(capsys.readouterr().out)
    assert (printed.schedule.T, printed.sampler.steps, printed.ckpt) == (90, 7, "a.ckpt")
    assert [file.name for file in workspace.iterdir()] == ["a.ckpt"]


REMEMBERED = (
    (config_loader_impl, "create_defaults_list"),
    (ConfigRepository, "load_config"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
)


@pytest.mark.long
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_what_the_tests_remember_is_what_hydra_composes(name, monkeypatch):
    """With `composition.remember`, Hydra makes the same configurations as without it."""
    ckpt = ["ckpt=x"] * (name == "evaluate")
    requests = [["debug=smoke", "seed=3"], ["recipe=photos", "network.channels=8", "schedule.T=90"],
                ["experiment=table2_eps_simple", "sampler=ddim", "evaluation={num_samples: 4}"],
                ["data=folder", "data.path='a b'", "logger=[csv,wandb]"]]  # fmt: skip
    remembered = [compose([*words, *ckpt], name) for words in requests * 2]
    for owner, function in REMEMBERED:
        monkeypatch.setattr(owner, function, getattr(owner, function).__wrapped__)
    anew = [compose([*words, *ckpt], name) for words in requests]
    assert [OmegaConf.to_yaml(each) for each in remembered] == [OmegaConf.to_yaml(each) for each in anew] * 2


def test_what_the_tests_remember_of_saved_configurations_is_what_hydra_composes(monkeypatch):
    bases = [plain(compose(words)) for words in (["debug=smoke"], ["recipe=photos"])]
    requests = [[], ["sampler=heun"], ["sampler.steps=7"], ["guidance=none", "evaluation={num_samples: 4}"]]

    def composed():
        return [OmegaConf.to_yaml(compose_saved(base, words)) for words in requests for base in bases]

    remembered = [composed(), composed()]
    for owner, function in (*REMEMBERED, (ConfigStore, "store")):
        monkeypatch.setattr(owner, function, getattr(owner, function).__wrapped__)
    assert remembered == [composed()] * 2
