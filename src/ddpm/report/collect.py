"""The runs under some folders are found and read here, for a report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ddpm.config.moved import translated
from ddpm.config.saved import completed, read_config
from ddpm.messages import printable
from ddpm.report import codecs, published, reading
from ddpm.report.run import ReportedRun, overrides, text
from ddpm.runs import records

SKIPPED = ("evaluations", "wandb")  # folders in which no runs are looked for
TERMS = ("t", "term")
RATES = ("rate_bits_per_dim", "rmse")


def within(folders: Sequence[Path]) -> list[ReportedRun]:
    """The runs in these folders, each once: those of a sweep in the order of its records, others by path."""
    seen: set[Path] = set()
    return [run for folder in folders for run in _within(folder, seen, folder.resolve())]


def _within(folder: Path, seen: set[Path], top: Path) -> Iterator[ReportedRun]:
    """The runs in a folder. Links are followed last, so that a run is listed under its own folder, not under a link."""
    folder = folder.resolve()
    if folder in seen or not folder.is_relative_to(top):  # a link may lead to any large tree
        return
    seen.add(folder)
    try:
        is_run = (folder / "config.yaml").is_file()
        recorded = [] if is_run else records.folders(folder)
        inside = [] if is_run else [path for path in folder.iterdir() if path.is_dir() and path not in recorded]
    except OSError:  # not ours to read
        return
    if is_run:
        yield _read(folder)
    for path in recorded:
        if path not in seen and (path.is_dir() or _cell(path)[0]):
            seen.add(path)
            yield _read(path)
    for path in sorted(inside, key=lambda path: (path.is_symlink(), path.name)):
        if path.name not in SKIPPED and not path.name.startswith("."):
            yield from _within(path, seen, top)


def _read(folder: Path) -> ReportedRun:
    run = ReportedRun(folder, "")
    cell, problem = _cell(folder)
    if cell:
        run.status, run.reason = printable(cell.status), printable(cell.reason)
        run.overrides, run.seconds = overrides(cell.overrides), cell.seconds
    run.problems += [problem] if problem else []
    if reading.bounded(run, folder / "config.yaml") is not None:
        try:
            run.config = completed(translated(read_config(folder)))
        except ValueError as error:
            run.problems.append(printable(str(error).replace(f"{folder}/", "")))
    _read_results(run)
    _read_curves(run)
    if not cell:
        run.status, run.reason = _end(run)
    if run.finished:
        run.reason = run.reason or run.stopped_early
    if run.measured_at is not None and run.measured_at < (last := _last_step(run)):
        run.problems.append(f"measured at step {run.measured_at:,.0f}, and is at step {last:,.0f}: evaluate it again")
    return run


def _cell(folder: Path) -> tuple[records.Cell | None, str]:
    """The sweep record of a run, and what is wrong with it, or ""."""
    file = folder.with_name(f"{folder.name}.json")
    try:
        reading.check_file(file, folder.parent)
        cell = records.of(folder)
        if cell:
            texts = [cell.status, cell.reason, *cell.overrides]
            if not all(isinstance(each, str) for each in texts) or reading.finite(cell.seconds) is None:
                raise ValueError("wrong types")
    except (OSError, ValueError, TypeError, RecursionError):
        return None, printable(f"{file.name} is not a sweep's record of a run") if file.exists() else ""
    return cell, ""


def _read_results(run: ReportedRun) -> None:
    content = reading.tree_of(run, "results.json")
    if content is None:
        return
    try:
        for name, parts in content["metrics"].items():
            numbers = {printable(part): reading.finite(value) for part, value in parts.items()}
            run.measured[printable(name)] = {part: value for part, value in numbers.items() if value is not None}
            if "value" in parts and "value" not in run.measured[printable(name)]:
                run.problems.append(printable(f"{name} is {parts['value']}"))
        if not run.config and isinstance(own := content.get("config"), dict):  # an evaluation of a sweep
            run.config = completed(translated(own))
        run.protocol = {printable(key): text(value) for key, value in published.flat(content["protocol"]).items()}
        run.codecs = codecs.read(run, content)
        for entry in content.get("published", []):
            run.verdicts[printable(entry["metric"])] = printable(entry["verdict"])
        run.measured_at = reading.finite(content.get("step"))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        run.problems.append("results.json is not complete")


def _read_curves(run: ReportedRun) -> None:
    table = reading.columns_of(run, "metrics.csv", "step")
    run.history = {name: reading.curve(table, "step", name) for name in table if name != "step"}
    run.terms = reading.curve(reading.columns_of(run, "bound.csv", *TERMS), *TERMS)
    run.rates = reading.curve(reading.columns_of(run, "rate_distortion.csv", *RATES), *RATES)


def _end(run: ReportedRun) -> tuple[str, str]:
    """Status and reason of a run that has no sweep record, as far as its files say."""
    step = max(_last_step(run), run.measured_at or 0)
    due = reading.finite(run.config.get("max_steps"))
    only_measured = bool(run.measured) and (due is None or not run.history)  # nothing was trained in it
    if only_measured or run.stopped_early or (due is not None and step >= due):
        return "finished", ""
    at = f"step {step:,.0f} of {due:,.0f}" if due is not None else ""
    return ("measured", f"measured at {at}") if run.measured else ("unfinished", at)


def _last_step(run: ReportedRun) -> float:
    return max((steps[-1] for steps, _ in run.history.values() if steps), default=0)
