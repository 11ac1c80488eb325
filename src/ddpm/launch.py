"""Where to compute: precision, devices and processes, as Lightning understands the `trainer` section."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from ddpm import hardware
from ddpm.messages import say
from ddpm.processes import RunFailedError, end_with_launcher


@dataclass(frozen=True)
class Rank:
    """One process among those that share the work: its number, how many there are, and its device."""

    index: int
    world_size: int
    device: torch.device

    @property
    def described(self) -> str:
        return "one process" if self.world_size == 1 else f"{self.world_size} processes"

    def everywhere(self, here: bool) -> bool:
        """Whether it is so on all processes; each must ask."""
        if self.world_size == 1:
            return here
        flag = torch.tensor(int(here), device=self.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        return bool(flag)


def resolve_precision(config: DictConfig) -> None:
    """Replace `trainer.precision=auto` by what suits the device; the run, and so what is saved, keeps the decision."""
    if config.trainer.precision == "auto":
        able = hardware.multiplies_bfloat16(hardware.device_type(config.trainer.accelerator))
        config.trainer.precision = "bf16-mixed" if able else "32-true"


def count_processes(settings: DictConfig) -> int:
    """Count the processes that Lightning would start for the `trainer` section.

    A Trainer is made for the question alone: only it knows what is possible on this machine.

    Raises:
        ValueError: Lightning refuses these settings here.
    """
    quieten()
    try:
        trainer = L.Trainer(
            **placement(settings),
            precision=settings.precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        asked = ", ".join(f"{key}={settings[key]}" for key in ("accelerator", "devices", "strategy", "precision"))
        raise ValueError(f"a trainer with {asked} is not possible here: {error}") from error
    return trainer.world_size


def placement(settings: DictConfig) -> dict[str, Any]:
    """The arguments of Lightning's Trainer and Fabric that say where to compute."""
    return {key: settings[key] for key in ("accelerator", "devices", "num_nodes", "strategy")}


def launch(settings: DictConfig) -> Rank:
    """Start the processes that share an evaluation (this one alone, by default), and say where this one stands."""
    quieten()
    end_with_launcher()
    fabric = L.Fabric(**placement(settings))
    fabric.launch()
    return Rank(fabric.global_rank, fabric.world_size, fabric.device)


def rank_of(runner: L.Trainer) -> Rank:
    """Where this process stands among those of a Trainer."""
    return Rank(runner.global_rank, runner.world_size, runner.strategy.root_device)


@contextlib.contextmanager
def sharing(how_to_go_on: str) -> Iterator[None]:
    """Turn an error or a signal that ends the work of one or several processes into a line that says how it goes on.

    Raises:
        RunFailedError: another process has ended, so that what all of them compute together cannot be; or a file cannot
            be read or written.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read what is printed may have read enough
        raise
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C or SIGTERM, where nothing else waits for them
        say(f"stopped; {how_to_go_on}", to=sys.stderr)
        raise
    except OSError as error:
        what = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
        raise RunFailedError(f"{what}; {how_to_go_on}") from error
    except RuntimeError as error:
        # NCCL's errors have a class; those of gloo are known by their text.
        if not isinstance(error, torch.distributed.DistError) and "/gloo/" not in str(error):
            raise
        what = "another process of this job has ended, so that it cannot go on"
        raise RunFailedError(f"{what}; {how_to_go_on}") from error


def quieten() -> None:
    """Keep Lightning's notices about itself out of the user's output."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # ... but for which rank has died, before the others are killed.
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    # A data set in memory is gathered faster by the training process than by workers.
    warnings.filterwarnings("ignore", r".*does not have many workers")
    # The averaged network is in evaluation mode on purpose.
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    # A process may have no chunk to measure, and all of them compute together.
    warnings.filterwarnings("ignore", r"The ``compute`` method of metric \w+ was called before the ``update`` method")
    # DDP under torch >= 2.15: the old name, which torch 2.11 needs; and gradients of kernels that are made of kernels.
    warnings.filterwarnings("ignore", r".*`broadcast_buffers` is deprecated")
    warnings.filterwarnings("ignore", r"Grad strides do not match bucket view strides")
    # SLURM's commands on a machine say nothing of how this run was started.
    warnings.filterwarnings("ignore", r"The `srun` command is available")
    # Lightning 2.6 with torch >= 2.13, about its own internals.
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")
