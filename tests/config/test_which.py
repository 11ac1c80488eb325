"""`which=best` is another way to write RUN/checkpoints/best.ckpt."""

import pytest

from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse, quote_paths
from ddpm.config.which import with_chosen


def chosen(*words):
    return {override.key_or_group: override.value() for override in parse(with_chosen(quote_paths(words)))}


@pytest.mark.parametrize("key", ["ckpt", "init", "resume"])
def test_the_best_checkpoint_takes_the_place_of_the_run_folder(workspace, key):
    folder = workspace / "it's mine"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    assert chosen(f"{key}={folder}", "which=best", "seed=1") == {key: str(folder / "checkpoints/best.ckpt"), "seed": 1}
    assert chosen(f"{key}={folder}", "which=last", "seed=1") == {key: str(folder), "seed": 1}
    assert chosen(f"{key}={folder}") == {key: str(folder)}


def test_nothing_is_read_into_other_words(workspace):
    words = ["seed=1,2", "data.path='which=best'", "+x=${seed}"]
    assert with_chosen(words) == words
    with pytest.raises(RequestError, match="ckpt=hf://a/b is none"):
        with_chosen(quote_paths(["ckpt=hf://a/b", "which=best"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ckpt=run", "which=first"], "must be last or best"),
        (["which=best"], "names"),
        (["ckpt=run", "which=best"], "run has no checkpoints/best.ckpt"),
        (["resume=auto", "out=run", "which=best"], "resume=auto goes on from the last"),
        (["init=run/checkpoints/last.ckpt", "which=best"], "is of a run folder"),
    ],
)
def test_what_cannot_be_chosen(workspace, words, message):
    (workspace / "run/checkpoints").mkdir(parents=True)
    (workspace / "run/checkpoints/last.ckpt").touch()
    with pytest.raises(RequestError, match=message):
        with_chosen(words)
