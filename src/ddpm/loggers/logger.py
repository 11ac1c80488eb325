"""What a logger of a run is: the contract that our own keep, and a user's own may."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from PIL.Image import Image


@dataclass(frozen=True)
class LoggedRun:
    """What a logger needs to know of the training or the evaluation that it logs.

    Attributes:
        folder: where it writes.
        config: the whole configuration.
        identity: what a dashboard calls the run: name, group, job_type.
        step: the step from which a training goes on; 0 where it begins.
        earlier: a run folder whose entry in a dashboard goes on here.
        settings: what the configuration says of this logger.
    """

    folder: Path
    config: dict[str, Any]
    identity: dict[str, str]
    step: int = 0
    earlier: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class RunLogger(Logger, ABC):
    """A Lightning logger that can also show pictures and histograms over t, and say how a run ended.

    `log_metrics` must be there; what else a logger does not take, it leaves to these defaults, which do nothing. It is
    made on rank 0 only, after everything about the request has been checked.
    """

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that cannot work, before there is a run.

        Args:
            settings: what the configuration says of this logger.

        Raises:
            ValueError: they cannot work, or a package is missing; one line that says what to do.
        """

    @classmethod
    @abstractmethod
    def of(cls, run: LoggedRun) -> "RunLogger":
        """The logger of a run that starts or goes on."""

    def log_picture(self, name: str, picture: Image, step: int) -> None:
        """Show a picture of this step."""

    def log_film(self, name: str, file: Path, step: int) -> None:
        """Show a film, a GIF, of the steps up to this one."""

    def log_by_t(self, name: str, means: Sequence[float], T: int, step: int) -> None:
        """Show a histogram over t = 1..T whose bars are `by_t.means_by_t`."""

    def finish(self, code: int) -> None:
        """Enter how the run ended, by its exit code, and send what is still held."""
        self.finalize("failed" if code else "success")

    def how_to_look(self) -> list[str]:
        """Lines that tell a person what to type to see the run."""
        return []
