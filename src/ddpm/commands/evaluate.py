"""IS, FID and bits/dim of a checkpoint: `ddpm evaluate ckpt=RUN_FOLDER_OR_FILE [GROUP=OPTION] [KEY=VALUE] ...`.

With `figures=[NAME,...]`, pictures instead; with -m, an evaluation for each combination, and a table of them.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ddpm.config import command
from ddpm.config.errors import request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import path_of
from ddpm.config.saved import plain
from ddpm.config.which import with_chosen
from ddpm.messages import say
from ddpm.report import published
from ddpm.runs import folders
from ddpm.sweep import sweep
from ddpm.sweep.work import WORKS

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ddpm.checkpoints.checkpoint import Checkpoint
    from ddpm.data.dataset import Dataset
    from ddpm.evaluation.results import Results


def evaluate(overrides: list[str], dataset: "Dataset | None" = None) -> "Results | None":
    """Evaluate a checkpoint, or make figures of it.

    Args:
        dataset: in the place of the configuration's dataset.

    Returns:
        The results, on rank 0; None for figures.

    Raises:
        RequestError: the request is wrong; nothing was written.
    """
    with folders.releasing():
        return _evaluate(overrides, dataset)


def _evaluate(overrides: list[str], dataset: "Dataset | None") -> "Results | None":
    with request_errors():  # a wrong request ends here, before anything is written
        saved, config = _composed(overrides)
        from ddpm import build, launch
        from ddpm.checkpoints import checkpoint
        from ddpm.evaluation.protocol import digest_of_weights
        from ddpm.loggers import loggers

        loggers.check(config)
        launch.count_processes(config.trainer)  # raises where that is not possible
        dataset = build.dataset(config, dataset)
        p = build.trained(saved, config, dataset)
        if config.figures:
            figures = build.figures(config, dataset, saved, p)
            folder = folders.figures_folder(saved.run, saved.name, config.out)
        else:
            evaluation = build.evaluation(config, dataset)
            name = evaluation.protocol(p)["fingerprint"]
            if saved.run is None:  # another file of this name may hold other weights
                name += f"-{digest_of_weights(p)[:10]}"
            elif saved.path.name != checkpoint.LAST:  # whose results are kept when others of the run are measured
                name += f"-{saved.name}"
            folder = folders.evaluation_folder(saved.run, saved.name, config.out, name)
            folders.lock(folder)
    rank = launch.launch(config.trainer)
    if config.figures:
        if rank.index == 0:
            figures.draw(folder, rank.device)
        return None
    with launch.sharing("the same command goes on with what it has measured"):
        about = {"ckpt": str(saved.path), "step": saved.step, "config": plain(config)}
        results = evaluation.run(p, rank, about, folder)
        if rank.index == 0:
            results.published = published.compare(config, results.metrics, saved.step)
            shown = loggers.of_evaluation(folder, plain(config), saved)
            with loggers.closing(shown):
                results.publish(folder, shown, saved.step, config.keep)
            if saved.run and not config.out and saved.data in (None, dataset.fingerprint):
                results.write(saved.run)  # the newest on the run's own data, where the report looks
    if rank.index == 0:
        say(*loggers.how_to_look(shown), f"results: {folder / 'results.json'}")
    return results if rank.index == 0 else None


def _composed(overrides: Sequence[str]) -> "tuple[Checkpoint, DictConfig]":
    """The checkpoint that is named, and the configuration of its evaluation."""
    from ddpm.checkpoints import checkpoint

    overrides = with_chosen(overrides)
    saved = checkpoint.load(path_of("ckpt", overrides))
    return saved, compose_evaluation(saved.config, overrides)


def _config_of(overrides: Sequence[str]) -> "DictConfig":
    with request_errors():
        return _composed(overrides)[1]


def main(argv: list[str]) -> int:
    return command.command_line(argv, evaluate, partial(sweep.run, work=WORKS["evaluate"]), _config_of, "evaluate")
