"""A sweep from its request to its report: it is planned, checked and launched, or an earlier one goes on."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddpm import report
from ddpm.config import command
from ddpm.config.compose import compose
from ddpm.config.errors import RefusedError, RequestError, request_errors
from ddpm.config.grammar import parse, path_of, quote, split_keys
from ddpm.config.groups import group_names
from ddpm.config.roles import is_user_only
from ddpm.messages import printable, say, typed
from ddpm.metrics import registry
from ddpm.runs import folders, records
from ddpm.sweep import cells, engines, gpus, grid, local, slurm
from ddpm.sweep.engines import Engines
from ddpm.sweep.work import Work

STOPPED: tuple[records.Status, str] = ("interrupted", "the sweep was stopped")
LAUNCHER = "hydra/launcher"
NAMED = 3  # cells in a line about the queue
POLL = 1.0  # seconds between two looks at the records of cells that run at the same time


@dataclass(frozen=True)
class Request:
    """What is to be done, by which engines, and the folder of the earlier sweep that goes on, if one does."""

    work: Work
    overrides: list[str]  # of the cells, axes included
    engines: Engines
    earlier: Path | None = None


def run(overrides: Sequence[str], work: Work) -> int:
    """Run a sweep, as `carry_out` does, and return its exit code: 1 if a cell did not finish, 2 if all are refused."""
    ends = {cell.status for cell in records.within(carry_out(overrides, work))}
    return 2 if ends == {"refused"} else int(not ends <= {"finished", "refused"})


def carry_out(overrides: Sequence[str], work: Work) -> Path:
    """Check the whole sweep, run its cells, write the report.

    Args:
        work: what each cell does.

    Returns:
        The sweep's folder.

    Raises:
        RequestError: a cell's overrides are wrong, there are no cells, every one is refused, or an engine is missing.
    """
    with folders.releasing():
        return _carry_out(overrides, work)


def _carry_out(overrides: Sequence[str], work: Work) -> Path:
    wishes, rest = split_keys(overrides, ("leave_running",))
    request = _read(rest, work)
    leave = _leave(wishes.get("leave_running", "False"), request.engines)
    plan = _check(request)
    if request.earlier:
        _check_again(request, plan, request.earlier)
    with request_errors():
        folder = request.earlier or folders.create(folders.ROOT / "sweeps")
        folders.lock(folder)
        records.within(folder)  # which can be read
    folders.link_latest(folder, folders.ROOT / "sweeps" / "latest")
    queue = slurm.Queue(folder) if request.engines.queued else None
    try:
        with _stoppable(folder, request, queue, leave):
            if queue and (alive := queue.alive(now=True)):
                say(f"jobs of this sweep are still in SLURM's queue: waiting for {', '.join(alive)}")
                with _followed(folder, queue):
                    queue.wait()
        with request_errors():
            todo = _record(request, plan, folder)
        count = len(plan) if todo is None else len(todo)
        if request.engines.searching:
            say(f"search in {folder}")
        else:
            say(f"sweep of {len(plan)} cells in {folder}" + f", {count} to run" * (count < len(plan)))
        with _stoppable(folder, request, queue, leave):
            if count:
                _launch(request, folder, count, todo, queue)
    finally:
        report.publish([folder], folder)
        say(f"report: {folder / 'report.html'}")
    return folder


def _leave(said: str, own: Engines) -> bool:
    """Whether jobs are left in their queue when the sweep is stopped."""
    if said not in ("True", "False"):
        raise RequestError(f"leave_running={said}: it is true or false")
    if said == "True" and not own.queued:
        raise RequestError("leave_running=true leaves jobs in SLURM's queue, and needs hydra/launcher=submitit_slurm")
    return said == "True"


@contextlib.contextmanager
def _stoppable(folder: Path, request: Request, queue: slurm.Queue | None, leave: bool) -> Iterator[None]:
    """A context in which cells run; where it is interrupted, their jobs are ended, or left, and the records say so."""
    stopped, left = False, dict[str, slurm.Job]()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stopped = True
        if queue and leave:
            left = queue.alive(now=True)
            say(f"left in SLURM's queue: {', '.join(left) or 'nothing'}", to=sys.stderr)
        elif queue:
            slurm.cancel(queue)
        elif request.engines.detached:
            local.end(folder)
        say(f"it goes on with: {typed(request.work.command, '-m', f'resume={folder}')}", to=sys.stderr)
        raise
    finally:
        if queue:
            queue.jobs(now=True)
        for cell in records.within(folder):
            if cell.status not in ("running", "waiting") or cell.job in left:
                continue
            submitted = queue.job_of(cell) if queue else None
            if submitted and submitted.state == "COMPLETED":
                continue  # it has recorded its end; a file system may be late to show it
            if cell.status == "running":  # what watched it has ended, too, and could not record it
                cell.status, cell.reason = slurm.OVER.get(submitted.state if submitted else "", STOPPED)
                cell.write()
            elif request.engines.detached and cell.reason and not stopped:
                cell.status, cell.reason = "interrupted", "its job's time was up: hydra.launcher.timeout_min="
                cell.write()
            elif submitted and submitted.state in slurm.OVER and not stopped:
                cell.status, why = slurm.OVER[submitted.state]
                cell.reason = f"{why} while it waited"
                cell.write()


def _read(overrides: Sequence[str], work: Work) -> Request:
    """The request of a command line; `resume=SWEEP` alone repeats the request of that sweep."""
    wishes, rest = split_keys(overrides, ("resume", "out"))
    if "out" in wishes:
        raise RequestError("out= names one run's folder: a sweep makes its own under runs/sweeps")
    own, of_runs = engines.of(rest)
    if "resume" not in wishes:
        return Request(work, work.prepared(of_runs), own)
    folder = Path(wishes["resume"]).absolute().resolve()
    if not (folder / records.PLAN).is_file():
        alone = (folder / "config.yaml").is_file()
        hint = "it is one run: leave -m away" if alone else "runs/sweeps/latest is the newest sweep"
        raise RequestError(f"resume={wishes['resume']} is not a sweep's folder (no {records.PLAN}); {hint}")
    try:
        kind = records.command(folder)
    except (ValueError, RecursionError):
        kind = work.command  # damaged: the command that is repeated stands for it
    if kind != work.command:
        there = typed(printable(kind), "-m", f"resume={folder}")
        raise RequestError(f"{folder} is a sweep of another command: {there}")
    if not of_runs:
        try:
            said, own_plan = records.plan(folder)["overrides"], records.is_own_plan(folder)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RequestError(f"{folder / records.PLAN} is damaged: repeat the sweep's command") from error
        if not own_plan and (strange := _not_to_follow(said)):
            raise RequestError(
                f"{folder} was not written by you, or has been changed, and says {printable(strange)}: "
                "what a file says of where to read, write, log and compute is not followed; repeat the sweep's command"
            )
        if any(override.key_or_group == LAUNCHER for override in parse(rest)):  # whose settings the old ones are not
            parsed = zip(said, parse(said), strict=True)
            said = [text for text, each in parsed if not each.key_or_group.startswith((LAUNCHER, "hydra.launcher."))]
        own, of_runs = engines.of([*said, *rest])
    return Request(work, work.prepared(of_runs), own, folder)


def _not_to_follow(said: Sequence[str]) -> str | None:
    """An override that is not followed in a plan from elsewhere: it says where, or refers to something else."""
    for text, override in zip(said, parse(list(said)), strict=True):
        key = override.key_or_group
        if "${" in text or (is_user_only(key) and key not in group_names()):
            return text
    return None


def _check(request: Request) -> list[tuple[list[str], str]]:
    """The overrides of every cell and the reason why it is refused, or ""; all are composed, as are the engines.

    Raises:
        RequestError: an override is wrong, or every cell is refused.
    """
    own = request.engines
    if own.searching and not request.work.known_to_hydra:
        raise RequestError(f"hydra/sweeper={own.sweeper} searches settings of runs: evaluations are swept in a grid")
    runs_ = grid.probes(request.overrides) if own.searching else grid.expand(request.overrides)
    compose(own.settings)
    plan = []
    for overrides in runs_:
        reason = ""
        try:
            config = request.work.compose(overrides)
        except RefusedError as error:
            reason = str(error)
        else:
            if own.searching:
                _check_metric(cells.metric(config), config.evaluate_after, own)
            if own.launcher == "joblib" and (here := gpus.visible()) and gpus.needed(config) > len(here):
                raise RequestError(f"trainer.devices={config.trainer.devices}: there are {len(here)} GPUs here")
        plan.append((overrides, reason))
    if all(reason for _, reason in plan):
        raise RequestError(f"every cell of this sweep is refused; the first: {plan[0][1]}")
    return plan


def _check_again(request: Request, plan: Sequence[tuple[list[str], str]], folder: Path) -> None:
    """Check that a request goes on with the sweep in this folder, and with the checkpoint that was evaluated there.

    Raises:
        RequestError: it does not.
    """
    with request_errors():
        known = records.within(folder)
    found = any(cells.same(cell, each) for cell in known for each, _ in plan)
    if known and not request.engines.searching and not found:
        raise RequestError(
            f"no cell of {folder} has these settings: resume= alone goes on with it, resume= beside its own command "
            "adds to it; a new sweep leaves resume= away"
        )
    before = records.subject(folder)
    now = request.work.subject(request.overrides)
    paths = {text for cell in known for text in cell.overrides if text.startswith("ckpt=")}
    moved = bool(paths) and not paths & {*request.overrides}  # plans of earlier versions have no digest
    if before != now if before else moved:
        raise RequestError(
            f"{path_of('ckpt', request.overrides)} has other weights than {folder} began to measure: a sweep's "
            "evaluations are of one checkpoint; leave resume= away for a new sweep"
        )


def _check_metric(metric: str | None, measured: bool, own: Engines) -> None:
    if metric is None or not measured:
        raise RequestError(
            "a search needs what it searches for: optimized_metric= one of evaluation.metrics, and evaluate_after=true"
        )
    better = registry.of(metric).better
    if better and (better == "higher") != own.maximizing:
        direction = "maximize" if better == "higher" else "minimize"
        raise RequestError(f"optimized_metric={metric} needs hydra.sweeper.direction={direction}")


def _record(request: Request, plan: Sequence[tuple[list[str], str]], folder: Path) -> list[records.Cell] | None:
    """Write the sweep's plan and the records of its cells, keeping those of an earlier start.

    Returns:
        The cells that are to run; None for a search, which chooses them as it goes.
    """
    varying = grid.varying(request.overrides)
    said, subject = [*request.overrides, *request.engines.settings], request.work.subject(request.overrides)
    records.write_plan(folder, request.work.command, said, varying, subject)
    if request.engines.searching:
        return None
    known = records.within(folder)
    number, todo = max((cell.number + 1 for cell in known), default=0), []
    for overrides, reason in plan:
        cell = next((cell for cell in known if cells.same(cell, overrides)), None)
        if cell is None:
            cell, number = cells.named(folder, number, overrides, varying), number + 1
        if cell.status not in records.SETTLED or not cell.folder.is_dir():
            cell.overrides, cell.job = overrides, ""
            cell.status, cell.reason = ("refused", reason) if reason else ("waiting", "")
            cell.write()
            if not reason:
                todo.append(cell)
    return todo


def _launch(
    request: Request, folder: Path, count: int, todo: Sequence[records.Cell] | None, queue: slurm.Queue | None
) -> None:
    """Let Hydra's sweeper and launcher run the cells, at most so many."""
    own = request.engines
    own.prepare(count)
    if queue:
        queue.expect([cell.folder.name for cell in todo or ()])
        slurm.prepare_launcher(
            queue, own.worst, lambda cell: todo is not None and not any(cells.addressed(cell, known) for known in todo)
        )
    try:
        with _followed(folder, queue) if own.parallel else contextlib.nullcontext():
            asked = request.overrides
            if not request.work.known_to_hydra:
                asked = [cells.address(*(todo or ()))]
            command.hydra_main(cells.run, ["-m", *asked, *own.settings, f"hydra.sweep.dir={quote(str(folder))}"])
            if queue:
                queue.wait()  # for jobs that are in it again
    finally:
        (folder / "multirun.yaml").unlink(missing_ok=True)  # Hydra's: what it holds stands in sweep.json


@contextlib.contextmanager
def _followed(folder: Path, queue: slurm.Queue | None) -> Iterator[None]:
    """A context that prints every change of a cell's status: cells that run at the same time print nothing here."""
    over, waited = threading.Event(), dict[str, str]()
    seen = {cell.folder.name: cell.status for cell in records.within(folder) if cell.status in records.SETTLED}

    def look() -> None:
        for cell in records.within(folder):
            if seen.get(cell.folder.name, "waiting") != cell.status:
                seen[cell.folder.name] = cell.status
                running = f" as job {cell.job}" * bool(cell.job) + f"; what it prints: {cell.log}"
                about = f": {cell.reason}" if cell.reason else running * (cell.status == "running")
                say(f"{cell.folder.name}: {cell.status}{about}")
        if queue and (waits := queue.waits()) != waited:
            changed = {name: why for name, why in waits.items() if waited.get(name) != why}
            for why in sorted(set(changed.values())):
                names = [name for name in changed if changed[name] == why]
                others = f" and {len(names) - NAMED} others" * (len(names) > NAMED)
                say(f"in SLURM's queue ({why}): {', '.join(names[:NAMED])}{others}")
            waited.clear()
            waited.update(waits)

    def follow() -> None:
        while not over.wait(POLL):
            look()

    thread = threading.Thread(target=follow, daemon=True, name="follow the cells")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
