"""What a command line means for a run that has begun: what the run is made of stays, whatever conf/ says today."""

import pytest
from omegaconf import OmegaConf

from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.saved import completed, plain, sign
from ddpm.training.resume import compose_resumable

AUTO = ["out=run", "resume=auto"]


@pytest.fixture
def begun(workspace):
    """A function that writes the configuration of a run as `words` compose it, with settings of an older conf/."""

    def write(*words, **older):
        config = compose([*words, "out=run"])
        for key, value in older.items():
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        sign(config)
        (workspace / "run").mkdir()
        OmegaConf.save(config, workspace / "run" / "config.yaml")
        return plain(config)

    return write


def resumed(*words):
    config, start = compose_resumable(list(words), {}.__getitem__)
    assert start is not None
    return plain(config)


@pytest.mark.parametrize("again", [["resume=run"], AUTO])
@pytest.mark.parametrize("words", [["recipe=cifar10"], ["experiment=table2_mu_simple", "network.channels=8"]])
def test_a_run_that_began_before_its_recipe_changed_goes_on_as_it_began(begun, capsys, words, again):
    older = {"optimizer.lr": 0.5, "ema.decay": 0.25, "every.samples": 77, "sampler.eta": 0.125, "network.channels": 8}
    before = begun(*words, **older)
    now = resumed(*words, *again)
    assert before.pop("signature")
    assert before | {"out": now["out"], "resume": None} == now
    assert "changed" not in capsys.readouterr().err


@pytest.mark.parametrize("word", ["optimizer.lr=0.125", "recipe=cifar10", "prediction=mu", "+network.extra=2"])
def test_what_is_typed_and_is_not_the_run_s_is_refused(begun, word):
    begun("+network.extra=1")
    with pytest.raises(RequestError, match=r"another run|a run keeps what it began with"):
        resumed(word, *AUTO)


def test_what_a_first_command_added_or_took_away_it_may_say_again(begun):
    words = ["+network.extra=1", "~network.dropout", "sampler=ddim", "sampler.eta=0.5"]
    begun(*words, **{"sampler.steps": 7})
    now = resumed(*words, *AUTO)
    assert now["network"]["extra"] == 1
    assert "dropout" not in now["network"]
    assert (now["sampler"]["eta"], now["sampler"]["steps"]) == (0.5, 7)


@pytest.mark.parametrize(
    "words",
    [
        ["metric=[fid,kid]"],
        ["schedule=linear", "schedule=cosine"],
        ["sampler=heun", "sampler=ddim", "sampler.eta=0.5"],
        ["logger=wandb", "logger=csv"],
        ["recipe=digits_conditional", "experiment=table2_mu_simple", "debug=smoke", "guidance=cfg"],
    ],
)
def test_a_command_may_be_repeated_whatever_it_says_twice(begun, words, capsys):
    before = completed(begun(*words))
    del before["signature"]
    assert resumed(*words, *AUTO) == before | {"out": resumed(*AUTO)["out"]}
    assert "changed" not in capsys.readouterr().err


def test_an_option_that_is_typed_for_a_run_is_taken_anew(begun):
    begun("sampler=ddim", "sampler.eta=0.5", "trainer.accumulate=2")
    now = resumed("resume=run", "sampler=ddim", "trainer=auto")
    assert (now["sampler"]["eta"], now["trainer"]["accumulate"]) == (0, 1)


def test_a_choice_without_its_section_is_none(begun):
    """A file may say that a logger was chosen, and hold none."""
    begun("logger=wandb", **{"logger": {}})
    assert resumed("logger=wandb", *AUTO)["logger"].keys() == {"wandb"}


def test_a_word_that_takes_something_away_reads_no_environment(begun, workspace):
    begun()
    file = workspace / "run" / "config.yaml"
    file.write_text(file.read_text().replace("network:\n", "network:\n  more: ${oc.env:NOWHERE}\n"))
    with pytest.raises(RequestError, match="is an interpolation"):
        resumed("~network.more", *AUTO)


def test_another_option_of_a_group_that_may_change_brings_its_own_settings(begun):
    begun("sampler=ddim", **{"sampler.steps": 7})
    now = resumed("sampler=ancestral", *AUTO)
    assert now["sampler"] == plain(compose(["sampler=ancestral"]))["sampler"]


def test_a_word_that_takes_away_what_the_run_has_makes_another_run(begun):
    begun()
    with pytest.raises(RequestError, match=r"another run"):
        resumed("~network.dropout", *AUTO)


def test_auto_begins_a_run_where_there_is_none(workspace):
    config, start = compose_resumable(["recipe=cifar10", *AUTO], {}.__getitem__)
    assert start is None
    assert config.out == "run"
