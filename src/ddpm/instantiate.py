"""Objects that sections of a configuration describe: only permitted ones, with settings of the right type, that keep
the contract of their group."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from ddpm.config.errors import first_line
from ddpm.config.grammar import shown
from ddpm.config.targets import check_targets

logging.getLogger("hydra.utils").addHandler(logging.NullHandler())  # it prints what it raises
T = TypeVar("T")
MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # *arguments, **arguments
PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    ListConfig: "a list",
}


def instantiate(node: DictConfig, contract: Callable[..., T], **arguments: Any) -> T:
    """Build what `node` describes; only what conf/ names is built, since a configuration may come from a file.

    Args:
        contract: the base class of which it must be, which documents what its classes have; or any function, which
            asks for nothing.
        arguments: what the caller knows and the configuration does not say.

    Raises:
        RequestError: another target.
        ValueError: a setting that the class does not have, or a class that does not keep the contract.
    """
    check_targets(OmegaConf.to_container(node, resolve=True))
    maker = _found(str(node["_target_"]))
    taken = _parameters(maker)
    name = node["_target_"].rpartition(".")[2]
    if not _takes_any(taken) and (strange := [str(key) for key in node if key not in ("_target_", *taken)]):
        raise ValueError(
            f"{name} has no setting {', '.join(strange)}, which the command line, a recipe or an experiment gives it: "
            f"it takes {', '.join(key for key in taken if key in node) or 'none'}"
        )
    for key, parameter in taken.items():
        stated = key in node and key not in arguments and parameter.kind not in MANY
        if stated and not _is_of(parameter.annotation, node[key]):
            raise ValueError(f"{name}: {key}={shown(node[key])} is not {_words(parameter.annotation)}")
    if lacking := [key for key in arguments if key not in taken and not _takes_any(taken)]:
        raise ValueError(f"{node['_target_']} must take {', '.join(arguments)}, and takes no {', '.join(lacking)}")
    _check_class(maker, contract)
    try:
        built = hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None
    if isinstance(contract, type) and not isinstance(built, contract):
        raise ValueError(f"{node['_target_']} gives a {type(built).__name__}, and must give a {_path(contract)}")
    if lacking := [fact for fact in _facts(contract) if not hasattr(built, fact)]:
        raise ValueError(f"{node['_target_']} does not keep the contract of {_path(contract)}: it states no "
                         f"{', '.join(lacking)}")  # fmt: skip
    return cast(T, built)


def takes(node: DictConfig, setting: str) -> bool:
    """Whether what `node` describes has an argument of this name."""
    return setting in _parameters(_found(str(node["_target_"])))


def resolve(target: str, contract: Callable[..., T]) -> T:
    """The object itself that a `_target_` names, as of a figure or a converter.

    Raises:
        RequestError: a target that conf/ does not name.
        ValueError: there is no such object, or it is none of the contract's.
    """
    check_targets({"_target_": target})
    found = _found(target)
    if isinstance(contract, type) and not isinstance(found, contract):
        raise ValueError(f"{target} is no {_path(contract)}, which says what it must have")
    return cast(T, found)


def class_of(target: str, contract: type[T]) -> type[T]:
    """The class that a `_target_` names, which is made elsewhere, as a logger's.

    Raises:
        RequestError: a target that conf/ does not name.
        ValueError: there is no such class, or it does not keep the contract.
    """
    check_targets({"_target_": target})
    found = _found(target)
    if not isinstance(found, type):
        raise ValueError(f"{target} is no class, and must be a {_path(contract)}")
    _check_class(found, contract)
    return found


def _found(target: str) -> Any:
    try:
        return hydra.utils.get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        cause = error.__cause__ or error  # Hydra's own message is its advice
        module, _, name = target.rpartition(".")
        missing = getattr(cause, "name", None) == target  # it was looked for as a module last
        why = f"{module} has no {name}" if missing else f"{type(cause).__name__}: {first_line(cause)}"
        raise ValueError(f"{target}, which a file under conf/ names, cannot be imported: {why}") from error


def _parameters(maker: Any) -> Mapping[str, inspect.Parameter]:
    """The arguments of a class or function; annotations that exist for type checkers alone remain texts."""
    try:
        return inspect.signature(maker, eval_str=True).parameters
    except NameError:  # imported under TYPE_CHECKING
        return inspect.signature(maker).parameters


def _check_class(maker: Any, contract: Callable[..., Any]) -> None:
    """Refuse a class that is not derived from the contract's, or leaves a method of it out."""
    if not isinstance(contract, type) or not isinstance(maker, type):
        return
    if not issubclass(maker, contract):
        raise ValueError(f"{_path(maker)} is no {_path(contract)}: derive it from that class, which says what it needs")
    if missing := sorted(getattr(maker, "__abstractmethods__", ())):
        raise ValueError(f"{_path(maker)} does not keep the contract of {_path(contract)}: no {', '.join(missing)}")


def _facts(contract: Callable[..., Any]) -> Iterator[str]:
    """The attributes that a contract of ours declares and leaves to its classes."""
    if isinstance(contract, type):
        for base in contract.__mro__:
            if base.__module__.startswith("ddpm."):
                yield from (name for name in inspect.get_annotations(base) if not hasattr(base, name))


def _takes_any(taken: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())


def _path(found: Any) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _is_of(annotation: Any, value: Any) -> bool:
    """Whether a value is of a parameter's type, as far as that is made of numbers, flags, texts and lists."""
    kinds = _kinds(annotation)
    if not all(isinstance(kind, type) and kind in PLAIN for kind in kinds):
        return True
    taken = {*kinds, int} if float in kinds else {*kinds}
    return type(value) in taken


def _words(annotation: Any) -> str:
    return " or ".join(PLAIN[kind] for kind in _kinds(annotation))


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows; whatever a list can be given for is a list here."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(ListConfig if get_origin(kind) in (Sequence, list, tuple) else kind for kind in kinds)
