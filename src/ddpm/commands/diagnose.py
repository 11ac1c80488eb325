"""What looks wrong with runs, in sentences: `ddpm diagnose RUN...`.

RUN is the folder of a run, finished or not, or one that contains such folders at any depth. What is said follows from
the configuration and from metrics.csv, by the rules that docs/charts.md explains.
"""

from ddpm.commands import report
from ddpm.config.errors import RequestError
from ddpm.messages import say
from ddpm.report import collect, diagnosis
from ddpm.report.run import ReportedRun


def main(arguments: list[str]) -> int:
    """Say what looks wrong with the runs that the arguments name.

    Returns:
        The exit code, 0 whatever is found.

    Raises:
        RequestError: an argument is wrong, or there are no runs.
    """
    where = report.folders_of(arguments, "diagnose")
    found = collect.within(where)
    if not found:
        raise RequestError(f"there is no run in {', '.join(map(str, where))}: a run's folder has a config.yaml")
    for run in found:
        say(*lines(run))
    return 0


def lines(run: ReportedRun) -> list[str]:
    """What is said of a run: where it is and how far it got, then a line for each finding."""
    steps, _ = run.history.get(diagnosis.LOSS, ([], []))
    status = run.status + (f" ({run.why})" if run.why else "")
    said = [f"{run.folder}: {status}"]
    if not diagnosis.enough(run):
        few = f"{len(steps)} losses are logged, and {diagnosis.FEWEST} are needed to judge by (every.log)"
        return [*said, f"  {few}"]
    found = [str(each) for each in diagnosis.findings(run)]
    return [*said, *(f"  {each}" for each in found or ["nothing looks wrong"])]
