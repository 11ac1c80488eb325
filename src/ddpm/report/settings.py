"""Which settings tell runs apart, and so are columns."""

from collections.abc import Collection, Sequence

from ddpm.config.roles import PRESETS, Role, role, tells_configurations_apart
from ddpm.report.run import ReportedRun

# Columns only where a sweep varies them: hardware, and what the protocol of a number says of its measurement.
ON_REQUEST = Role.HARDWARE | Role.MEASURING


def varying(runs: Sequence[ReportedRun]) -> list[str]:
    """The settings that tell the lines apart: in one sweep its overrides, elsewhere by configuration."""
    asked = list(dict.fromkeys(key for run in runs for key in run.overrides or {}))
    one_sweep = all(run.overrides is not None for run in runs) and len({run.folder.parent for run in runs}) == 1
    if one_sweep:
        candidates = [key for key in asked if tells_configurations_apart(key)]
        keys = [key for key in candidates if _varies(runs, key)]
        return keys or candidates[:1] or ["recipe"]
    groups = list(dict.fromkeys(group for run in runs for group in run.choices))
    leaves = list(dict.fromkeys([*(key for run in runs for key in run.settings), *asked]))
    presets = [key for key in PRESETS if _varies(runs, key)]
    keys = list(presets)
    for key in (*groups, *leaves):
        if key in PRESETS or not tells_configurations_apart(key) or not _varies(runs, key):
            continue
        follows = _explained(runs, key, presets) or _explained(runs, key, _own(key, groups))
        if key not in asked and (role(key) & ON_REQUEST or follows):
            continue
        if not any(_same(runs, key, other) for other in keys):
            keys.append(key)
    return keys or ["recipe"]


def differences(runs: Sequence[ReportedRun]) -> list[str]:
    """Every setting that is not the same in all configurations, bookkeeping aside."""
    read = [run for run in runs if run.config]
    groups = {group for run in read for group in run.choices}
    keys = dict.fromkeys(key for run in read for key in (*run.choices, *run.settings))
    return [
        key
        for key in keys
        if _varies(read, key)
        and tells_configurations_apart(key)
        and not role(key) & Role.HARDWARE
        and not (key.endswith("._target_") and _explained(read, key, _own(key, groups)))
    ]


def _varies(runs: Sequence[ReportedRun], key: str) -> bool:
    return len({run.setting(key) for run in runs if run.knows(key)}) > 1


def _explained(runs: Sequence[ReportedRun], key: str, others: Sequence[str]) -> bool:
    """Whether the values of `others` decide that of `key`, which varies."""
    values = {(tuple(run.setting(other) for other in others), run.setting(key)) for run in runs if run.knows(key)}
    return len({decisive for decisive, _ in values}) == len(values)


def _own(key: str, groups: Collection[str]) -> list[str]:
    """The groups that a leaf is in."""
    return [part for part in key.split(".")[:-1] if part in groups]


def _same(runs: Sequence[ReportedRun], key: str, other: str) -> bool:
    """One setting that stands in two places: `schedule.T` is `timesteps.T`."""
    return key.rpartition(".")[2] == other.rpartition(".")[2] and all(
        run.setting(key) == run.setting(other) for run in runs
    )


def under(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted name is one of these, or in one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
