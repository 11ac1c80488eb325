"""The engines of a sweep, Hydra's own or a plugin's: a launcher runs the cells, a sweeper chooses them."""

import importlib.util
import logging
import math
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from ddpm.config.errors import RequestError
from ddpm.config.grammar import nearest, parse

PLUGINS = {  # by group and option: the module in which it is
    "hydra/launcher": {
        "basic": "hydra",
        "joblib": "hydra_plugins.hydra_joblib_launcher",
        "submitit_local": "hydra_plugins.hydra_submitit_launcher",
        "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    },
    "hydra/sweeper": {"basic": "hydra", "optuna": "hydra_plugins.hydra_optuna_sweeper"},
}


@dataclass(frozen=True)
class Engines:
    """The launcher and the sweeper of a sweep, and the settings of both."""

    launcher: str
    sweeper: str
    settings: list[str]  # the overrides of hydra's own configuration

    @property
    def parallel(self) -> bool:
        """Whether cells run at the same time; what they print then goes to files, not to the terminal."""
        return self.launcher != "basic"

    @property
    def queued(self) -> bool:
        """Whether cells are jobs in SLURM's queue, which may run without the sweep."""
        return self.launcher == "submitit_slurm"

    @property
    def detached(self) -> bool:
        """Whether cells are processes of this machine that would outlive the sweep."""
        return self.launcher == "submitit_local"

    @property
    def searching(self) -> bool:
        """Whether the next cells depend on what the last ones measured."""
        return self.sweeper != "basic"

    @property
    def maximizing(self) -> bool:
        """Whether a search looks for the largest value of its metric."""
        return self._setting("hydra.sweeper.direction", "minimize") == "maximize"

    @property
    def worst(self) -> float:
        """What a cell without a number counts as in a search."""
        return -math.inf if self.maximizing else math.inf

    def prepare(self, cells: int) -> None:
        """Prepare this process, whose environment the cells inherit, for launching so many cells."""
        if self.launcher == "joblib":  # with more threads than cores, cells would wait for each other
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            n_jobs = int(self._setting("hydra.launcher.n_jobs", "-1"))
            at_once = min(max(1, cells), cores if n_jobs < 1 else n_jobs)
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // at_once)))
            from joblib.externals.loky import process_executor

            # A stopped sweep's workers are killed, not the cells that they watch: these end by themselves, saved.
            process_executor.kill_process_tree = _kill_alone
        if self.detached:
            from submitit.local.local import LocalJob

            go_on_without(LocalJob, self.worst)
        if self.sweeper == "optuna":
            from optuna.logging import set_verbosity

            set_verbosity(logging.WARNING)

    def _setting(self, key: str, default: str) -> str:
        values = [str(override.value()) for override in parse(self.settings) if override.key_or_group == key]
        return values[-1] if values else default


def go_on_without(jobs: type, lost: float) -> None:
    """Let a sweep go on where one of its jobs, of a class of submitit's, ends without a result.

    Args:
        lost: the value of such a job in a search.
    """
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import UncompletedJobError

    nothing, results = JobReturn(_return_value=lost, status=JobStatus.COMPLETED), jobs.results  # type: ignore[attr-defined]

    def results_or_nothing(job: Any) -> Any:
        try:
            return results(job)
        except UncompletedJobError:
            return [nothing]

    jobs.results = results_or_nothing  # type: ignore[attr-defined]


def _kill_alone(worker: BaseProcess, **_: object) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


def of(overrides: Sequence[str]) -> tuple[Engines, list[str]]:
    """Split the overrides of a sweep into its engines (all that is under `hydra`) and the overrides of its runs.

    Raises:
        RequestError: an engine does not exist, is not installed, or cannot work on this machine.
    """
    own, rest, chosen = [], [], dict.fromkeys(PLUGINS, "basic")
    for text, override in zip(overrides, parse(overrides), strict=True):
        key = override.key_or_group
        if not key.startswith("hydra"):
            rest.append(text)
            continue
        if override.is_sweep_override():
            raise RequestError(f"{text}: a sweep varies the settings of its runs, not its own")
        if key == "hydra.launcher.submitit_folder":
            raise RequestError(f"{text}: a sweep finds its jobs again by this folder, which is in the sweep's own")
        own.append(text)
        if key in PLUGINS:
            chosen[key] = str(override.value())
            _require(key, chosen[key])
    if chosen["hydra/launcher"] == "submitit_slurm" and shutil.which("sbatch") is None:
        raise RequestError(
            "hydra/launcher=submitit_slurm submits jobs to SLURM, and there is no sbatch here: start it on a login "
            "node, or use submitit_local or joblib"
        )
    if chosen["hydra/launcher"].startswith("submitit") and not any("hydra.launcher.name" in text for text in own):
        own.append("hydra.launcher.name=ddpm")  # of the jobs, in a queue's list
    if chosen["hydra/sweeper"] == "optuna" and not any("/sampler" in text or ".sampler" in text for text in own):
        own.append("hydra.sweeper.sampler.seed=0")  # a search that is resumed must propose the same cells again
    return Engines(chosen["hydra/launcher"], chosen["hydra/sweeper"], own), rest


def _require(group: str, option: str) -> None:
    known = PLUGINS[group]
    if option not in known:
        raise RequestError(f"{group}={option} does not exist{nearest(option, list(known))}; options: "
                               f"{', '.join(known)}")  # fmt: skip
    module = known[option]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise RequestError(f"{group}={option} needs a plugin that is not installed: pip install '.[sweep]'")
