"""Train a diffusion model: `ddpm train [GROUP=OPTION] [KEY=VALUE] ...`; with -m, one run for each combination."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.config import command
from ddpm.config.errors import request_errors
from ddpm.config.recipes import made_for_other_data, proposes
from ddpm.config.saved import plain, sign
from ddpm.config.which import with_chosen
from ddpm.messages import say, typed, warn
from ddpm.report import published
from ddpm.runs import folders
from ddpm.sweep import sweep
from ddpm.sweep.work import WORKS
from ddpm.training import resume
from ddpm.training.monitor import Monitor, monitor_of

if TYPE_CHECKING:
    from lightning import Trainer
    from lightning.pytorch.callbacks import Callback
    from omegaconf import DictConfig

    from ddpm.checkpoints.checkpoint import Checkpoint
    from ddpm.data.dataset import Dataset
    from ddpm.evaluation.evaluation import Evaluation
    from ddpm.training.module import DiffusionModule


def train(overrides: list[str], dataset: "Dataset | None" = None, callbacks: "Sequence[Callback]" = ()) -> Path:
    """Train, and evaluate if the configuration says so.

    Args:
        dataset: in the place of the configuration's dataset.
        callbacks: of Lightning's Trainer, beside those of every run.

    Returns:
        The run's folder.

    Raises:
        RequestError: the request is wrong; nothing was written.
    """
    with folders.releasing():
        return _train(overrides, dataset, callbacks)


def _train(overrides: list[str], dataset: "Dataset | None", callbacks: "Sequence[Callback]") -> Path:
    with request_errors():  # a wrong request ends here, before anything is written
        overrides, proposal = with_chosen(overrides), None
        if proposes(overrides) and not resume.goes_on(overrides):
            from ddpm.own_pictures.propose import propose

            proposal = propose(overrides)
            overrides = [*proposal.words, *overrides]
        config, run = resume.compose_resumable(overrides, _config_of)
        from ddpm import build, launch
        from ddpm.checkpoints import checkpoint
        from ddpm.loggers import loggers
        from ddpm.training.trainer import fit, trainer_of

        launch.resolve_precision(config)
        processes = launch.count_processes(config.trainer)
        dataset = build.dataset(config, dataset)
        saved, monitor = checkpoint.newest(run) if run else None, monitor_of(plain(config))
        if saved:
            resume.check(saved.config, config, saved.path, saved.step)
            monitor.resume(saved.monitor, saved.path)
            if finished := _finished(config, saved, monitor):
                say(f"{config.out} is finished: {finished}")
                return Path(config.out)
        start = checkpoint.load(config.init) if config.init and not saved else None
        sign(config)
        loggers.check(config)
        data, module = build.data_module(config, dataset, processes), build.module(config, dataset, start)
        build.check_shares(module.p.network, processes * config.trainer.accumulate)
        sampler, guidance = build.sampler(config), build.guidance(config, dataset)
        if saved:
            build.check_resumed(saved, module, dataset)
        evaluation = build.evaluation(config, dataset) if config.evaluate_after else None
        few = build.sample_metrics_in_training(config, dataset)
        callbacks = [*build.callbacks(config), *callbacks]
        folder = folders.start(config, again=run is not None)
    if proposal:
        proposal.write(folder)
    elif not run and (advice := made_for_other_data(config, overrides)):
        warn(advice)
    say(f"run folder: {folder}", build.summary(module, config))
    if start:
        say(f"begins with the weights of {start.path}" + f", step {start.step:,}" * bool(start.step))
    if run:
        say(f"going on from step {saved.step:,}" if saved else "no checkpoint yet: from the beginning")
    trainer = trainer_of(config, folder, data, sampler, guidance, monitor, few, saved, callbacks)
    with loggers.closing(trainer.loggers):
        fit(trainer, module, data, saved.path if saved else None)
        if evaluation:
            folder = trainer.strategy.broadcast(folder)  # only rank 0 knows what it is called
            _evaluate(trainer, evaluation, module, config, folder)
    say(*loggers.how_to_look(trainer.loggers), f"run folder: {folder}")
    return folder


def _finished(config: "DictConfig", saved: "Checkpoint", monitor: Monitor) -> str:
    """Why nothing is left to be done for the run of this checkpoint, "" if something is."""
    from ddpm.evaluation.results import has_measured

    evaluated = has_measured(saved.path, saved.step, Path(config.out), config.evaluation.metrics)
    left = saved.pending or (config.evaluate_after and not evaluated)
    return "" if left else resume.why_finished(config, saved.step, monitor)


def _evaluate(
    trainer: "Trainer", evaluation: "Evaluation", module: "DiffusionModule", config: "DictConfig", folder: Path
) -> None:
    """Measure the averaged weights of the run that has just been trained."""
    from ddpm import launch
    from ddpm.checkpoints import checkpoint

    step = trainer.global_step
    about = {"ckpt": str(folder / "checkpoints" / checkpoint.LAST), "step": step, "config": plain(config)}
    with launch.sharing(f"it is trained, and measured with: {typed('evaluate', f'ckpt={folder}')}"):
        results = evaluation.run(module.p_ema, launch.rank_of(trainer), about, folder)
    if trainer.is_global_zero:
        results.published = published.compare(config, results.metrics, step)
        results.publish(folder, trainer.loggers, step)


def _config_of(ckpt: str) -> dict[str, Any]:
    from ddpm.checkpoints import checkpoint

    with request_errors():
        return checkpoint.load(ckpt).config


def main(argv: list[str]) -> int:
    return command.command_line(argv, train, partial(sweep.run, work=WORKS["train"]), _composed, "train")


def _composed(overrides: list[str]) -> "DictConfig":
    return resume.compose_resumable(with_chosen(overrides), _config_of, only_looks=True)[0]
