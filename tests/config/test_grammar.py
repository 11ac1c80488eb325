"""Hydra's grammar, and the paths that it must leave alone."""

import os

import pytest

from ddpm.config.compose import known_keys
from ddpm.config.errors import RequestError
from ddpm.config.grammar import ELSEWHERE, PATH_KEYS, parse, path_of, quote_paths, split_keys
from ddpm.config.groups import group_names

PATHS = (
    "ckpt", "init", "resume", "out", "to", "push", "data.path", "data.condition_path", "features.weights",
    "guidance.weak",
)  # fmt: skip


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("path", ["a b", "a,b", "${x}", "it's", "a\\", "~/a", "k=v", "{a: 1}", "[1", "a:b", "é"])
def test_any_path_passes_through(key, path):
    (override,) = parse(quote_paths([f"{key}={path}"]))
    assert override.key_or_group == key
    assert override.value().replace("\\${", "${") == os.path.expanduser(path)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("sampler.times=/home/jürgen/times.json", "/home/jürgen/times.json"),
        ("data.root=/data (mine)/x", "/data (mine)/x"),
        ("name=größe", "größe"),
        ("sampler.times=lr=3/times.json", "lr=3/times.json"),
        ("+name=日本", "日本"),
    ],
)
def test_letters_of_all_languages_can_be_said(said, value):
    (override,) = parse(quote_paths([said]))
    assert override.value() == value


@pytest.mark.parametrize(
    "said", ["experiment=glob(table2_*)", "seed=range(1,4)", "seed=choice(1,2)", "name=[ü]", "a=b(c"]
)
def test_what_the_grammar_knows_is_left_alone(said):
    expected = "a='b(c'" if said == "a=b(c" else said
    assert quote_paths([said]) == [expected]


@pytest.mark.parametrize("said", ["out=null", "resume=auto", "out=", "network.channels=8", "data=folder", "out"])
def test_the_rest_is_left_alone(said):
    assert quote_paths([said]) == [said]


def test_of_several_the_last_counts():
    assert path_of("ckpt", ["ckpt=first", "seed=1", "ckpt=last"]) == "last"
    for missing in (["seed=1"], ["ckpt=a", "ckpt="], ["ckpt=null"]):
        with pytest.raises(RequestError, match="ckpt= is missing"):
            path_of("ckpt", missing)


def test_settings_of_a_command_are_apart_from_the_configuration_s():
    values, rest = split_keys(["to=a", "seed=1", "format=b", "network=unet"], ["to", "format", "force"])
    assert values == {"to": "a", "format": "b"}
    assert rest == ["seed=1", "network=unet"]


def test_a_setting_of_a_command_that_is_null_is_not_said():
    assert split_keys(["out=null", "which=best"], ["out", "which"]) == ({"which": "best"}, [])


@pytest.mark.parametrize(
    ("said", "message"),
    [("seed", "settings are written KEY=VALUE"), ("a=[1", "cannot read 'a=\\[1'"), ("=3", "cannot read")],
)
def test_what_is_no_setting_is_refused_in_a_line(said, message):
    with pytest.raises(RequestError, match=message) as caught:
        parse(["seed=1", said])
    assert "\n" not in str(caught.value)


def test_the_words_of_other_programs_stand_for_settings():
    known = {*known_keys("train", []), *group_names(), *PATH_KEYS}
    assert {ours for several in ELSEWHERE.values() for ours in several} <= known
    assert not ELSEWHERE.keys() & known
