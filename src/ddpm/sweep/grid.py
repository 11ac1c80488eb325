"""Which runs a sweep asks for: all of a grid; for a search, samples that show whether every value is valid."""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm.config.errors import RequestError
from ddpm.config.grammar import parse
from ddpm.config.groups import hydra_context


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every run of a grid, in Hydra's order.

    Raises:
        RequestError: a glob or list is empty, an axis is an interval, or the same run comes twice.
    """
    axes = _axes(overrides)
    for axis in axes:
        if axis.is_interval_sweep():
            raise RequestError(f"{axis.input_line} has no end of values: add hydra/sweeper=optuna to search it")
    with hydra_context():
        [grid] = BasicSweeper.split_arguments(axes, max_batch_size=None)
    if len({tuple(run) for run in grid}) < len(grid):
        twice = next(axis for axis in axes if len(values := _values(axis)) > len(set(values)))
        raise RequestError(f"{twice.input_line} names the same run twice")
    return [list(run) for run in grid]


def probes(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of a few runs of a search, in which each value, and both ends of an interval, occur.

    Raises:
        RequestError: a glob or list is empty, or there is nothing to search.
    """
    axes = _axes(overrides)
    choices = [[f"{axis.get_key_element()}={value}" for value in _values(axis)] for axis in axes]
    if all(len(values) == 1 for values in choices):
        raise RequestError("there is nothing to search: give a setting several values, or interval(LOW,HIGH)")
    first = [values[0] for values in choices]
    return [first, *([*first[:k], value, *first[k + 1 :]] for k, values in enumerate(choices) for value in values[1:])]


def first(overrides: Sequence[str]) -> list[str]:
    """The overrides of the sweep's first run: of several values the first.

    Raises:
        RequestError: a glob or list is empty.
    """
    return [f"{axis.get_key_element()}={_values(axis)[0]}" for axis in _axes(overrides)]


def varying(overrides: Sequence[str]) -> list[str]:
    """The keys of a sweep's axes, whose values differ between its runs."""
    return [override.key_or_group for override in parse(overrides) if override.is_sweep_override()]


def _axes(overrides: Sequence[str]) -> list[Any]:
    parse(overrides)  # one by one, since its messages then name the override that is wrong
    with hydra_context():
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        axes = parser.parse_overrides(list(overrides))
        for axis in axes:
            if axis.is_discrete_sweep() and not _values(axis):
                raise RequestError(f"{axis.input_line} matches nothing: there would be no run")
    return axes


def _values(axis: Any) -> list[str]:
    return list(_texts(axis))


def _texts(axis: Any) -> Iterator[str]:
    if axis.is_interval_sweep():
        yield from (str(axis.value().start), str(axis.value().end))
    elif axis.is_discrete_sweep():
        yield from axis.sweep_string_iterator()
    else:
        yield axis.get_value_element_as_str()
