"""What a configuration describes is built if conf/ names it, its settings fit, and it keeps its contract."""

import sys
import types
from abc import ABC, abstractmethod
from typing import Optional

import pytest
from omegaconf import OmegaConf

from ddpm import instantiate as module
from ddpm.config.errors import RequestError
from ddpm.instantiate import class_of, instantiate, resolve, takes


@pytest.fixture
def named(monkeypatch):
    """Puts objects into a module, `things`, as if conf/ named them."""
    things = types.ModuleType("things")
    monkeypatch.setitem(sys.modules, "things", things)
    monkeypatch.setattr(module, "check_targets", lambda tree: None)
    return lambda **objects: things.__dict__.update(objects)


def section(name="Mine", **settings):
    return OmegaConf.create({"_target_": f"things.{name}", **settings})


def anything():
    """No contract."""


def taking(kind):
    """A class with one setting of this type."""

    class Mine:
        def __init__(self, x: kind) -> None:
            self.x = x

    return Mine


@pytest.mark.parametrize(
    ("kind", "fit", "others"),
    [
        (int, [3], {3.0: "a whole number", True: "a whole number", "3": "a whole number", None: "a whole number"}),
        (float, [3, 0.5], {True: "a number", "3": "a number"}),
        (bool, [True], {1: "true or false", "yes": "true or false"}),
        (str, ["3"], {3: "a text", False: "a text"}),
        (int | None, [3, None], {"3": "a whole number or null", False: "a whole number or null"}),
        (Optional[float], [3, None], {"x": "a number or null"}),  # noqa: UP045
        (int | list[int], [3, [1, 2]], {"3": "a whole number or a list", None: "a whole number or a list"}),
        (list[int], [[1, 2]], {"3": "a list", 3: "a list"}),
        (dict[str, int], ["whatever"], {}),  # what is not made of plain types alone is the class's to check
    ],
    ids=["int", "float", "bool", "str", "int or null", "float or null", "int or list", "list", "others"],
)
def test_settings_are_of_the_types_that_the_class_says(named, kind, fit, others):
    named(Mine=taking(kind))
    for value in fit:
        assert instantiate(section(x=value), anything).x == value
    for value, due in others.items():
        typed = {"True": "true", "False": "false", "None": "null"}.get(str(value), value)
        with pytest.raises(ValueError, match=f"^Mine: x={typed} is not {due}$"):
            instantiate(section(x=value), anything)


def test_what_is_handed_over_in_place_of_a_setting_may_be_of_another_type(named):
    """The times that a sampler takes are handed over in this way, where the setting is the name of their file."""
    named(Mine=taking(list[int]))
    assert instantiate(section(x="times.json"), anything, x=[3, 2]).x == [3, 2]


def test_a_list_of_settings_is_a_list(named):
    named(Mine=taking(object))
    built = instantiate(section(x=[1, {"a": [2]}]), anything).x
    assert [type(each) for each in (built, built[1], built[1]["a"])] == [list, dict, list]


@pytest.mark.parametrize("value", [1, None])
def test_a_setting_that_the_class_has_not_is_refused_with_those_it_has(named, value):
    named(Mine=taking(int))
    with pytest.raises(ValueError, match=r"^Mine has no setting depth, .*: it takes x$"):
        instantiate(section(x=3, depth=value), anything)


def test_what_the_caller_knows_must_be_taken(named):
    class Open:
        def __init__(self, **settings: int) -> None:
            self.settings = settings

    class Many:
        def __init__(self, *x: int) -> None: ...

    named(Mine=taking(int), Open=Open, Many=Many)
    assert instantiate(section(), anything, x=3).x == 3
    with pytest.raises(ValueError, match=r"^things\.Mine must take x, width, and takes no width$"):
        instantiate(section(), anything, x=3, width=5)
    found = instantiate(section("Open", settings=[1], more="text"), anything, x=3).settings
    assert found == {"settings": [1], "more": "text", "x": 3}
    with pytest.raises(ValueError, match=r"^Many has no setting width"):
        instantiate(section("Many", width=[1]), anything)
    assert takes(section(), "x")
    assert not takes(section(), "width")


def test_what_is_wrong_inside_of_the_class_is_said_as_the_class_says_it(named):
    def refuse(x):
        raise ValueError(f"x={x} is too large")

    named(Mine=refuse)
    with pytest.raises(ValueError, match=r"^x=3 is too large$"):
        instantiate(section(x=3), anything)


class Older(ABC):
    """A contract of ours, from which another derives."""

    __module__ = "ddpm.older"
    width: int


class Contract(Older):
    __module__ = "ddpm.contract"
    learned: bool
    given: bool = True  # a default, which a class may leave as it is

    @abstractmethod
    def target(self) -> None: ...


class Whole(Contract):
    learned = True

    def __init__(self) -> None:
        self.width = 3

    def target(self) -> None: ...


class WithoutMethod(Contract):
    learned, width = True, 3


class WithoutFact(Contract):
    width = 3

    def target(self) -> None: ...


class WithoutOlderFact(Contract):
    learned = True

    def target(self) -> None: ...


class Other:
    learned, width = True, 3

    def target(self) -> None: ...


BREACHES = {
    WithoutMethod: r"WithoutMethod does not keep the contract of ddpm\.contract\.Contract: no target$",
    WithoutFact: r"does not keep the contract of ddpm\.contract\.Contract: it states no learned$",
    WithoutOlderFact: "it states no width$",
    Other: r"Other is no ddpm\.contract\.Contract: derive it from that class",
}


def test_a_class_keeps_its_contract(named):
    named(Mine=Whole, function=Whole)
    assert type(instantiate(section(), Contract)) is Whole
    for breach, said in BREACHES.items():
        named(Mine=breach)
        with pytest.raises(ValueError, match=said):
            instantiate(section(), Contract)


def test_a_function_may_make_what_the_contract_asks_for_and_nothing_else(named):
    named(right=lambda: Whole(), wrong=lambda: Other(), short=lambda: WithoutOlderFact())
    assert type(instantiate(section("right"), Contract)) is Whole
    with pytest.raises(ValueError, match=r"^things\.wrong gives a Other, and must give a ddpm\.contract\.Contract$"):
        instantiate(section("wrong"), Contract)
    with pytest.raises(ValueError, match=r"it states no width$"):
        instantiate(section("short"), Contract)


def test_an_object_that_is_named_is_the_contract_s(named):
    named(whole=Whole(), Mine=Whole, other=3)
    assert type(resolve("things.whole", Contract)) is Whole
    assert resolve("things.other", anything) == 3
    with pytest.raises(ValueError, match=r"^things\.other is no ddpm\.contract\.Contract"):
        resolve("things.other", Contract)
    assert class_of("things.Mine", Contract) is Whole
    for name, said in (("other", r"is no class, and must be a ddpm\.contract\.Contract$"), ("whole", "is no class")):
        with pytest.raises(ValueError, match=rf"^things\.{name} {said}"):
            class_of(f"things.{name}", Contract)
    for breach in (WithoutMethod, Other):
        named(Mine=breach)
        with pytest.raises(ValueError, match=BREACHES[breach]):
            class_of("things.Mine", Contract)


def test_what_cannot_be_imported_is_said_with_the_reason(named, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needing.py").write_text("import nowhere_at_all\nclass Mine: pass")
    with pytest.raises(ValueError, match=r"^things\.Mine, which .* cannot be imported: things has no Mine$"):
        instantiate(section(), anything)
    with pytest.raises(ValueError, match=r"ModuleNotFoundError: No module named 'nowhere_at_all'$"):
        resolve("needing.Mine", anything)


@pytest.mark.parametrize("build", [resolve, class_of])
def test_only_what_conf_names_is_looked_up(build):
    with pytest.raises(RequestError, match="not one of conf"):
        build("os.system", object)


def test_annotations_that_only_a_type_checker_can_read_ask_for_nothing(named):
    class Mine:
        def __init__(self, x: "NotImported", n: "int") -> None:
            self.x, self.n = x, n

    class Readable:
        def __init__(self, n: "int") -> None:
            self.n = n

    named(Mine=Mine, Readable=Readable)
    assert instantiate(section(x=[1], n="text"), anything).n == "text"
    with pytest.raises(ValueError, match="n=text is not a whole number"):
        instantiate(section("Readable", n="text"), anything)
