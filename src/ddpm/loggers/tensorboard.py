"""TensorBoard: event files in the run folder."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL.Image import Image

from ddpm.loggers.by_t import edges_of_t
from ddpm.loggers.logger import LoggedRun, RunLogger


class TensorBoard(RunLogger, TensorBoardLogger):
    """Writes FOLDER/tensorboard; what an earlier start wrote there after `step` is no longer shown."""

    @classmethod
    def of(cls, run: LoggedRun) -> "TensorBoard":
        return cls(run.folder, "tensorboard", "", purge_step=run.step + 1 if run.step else None)

    def log_picture(self, name: str, picture: Image, step: int) -> None:
        self.experiment.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def log_by_t(self, name: str, means: Sequence[float], T: int, step: int) -> None:
        heights, edges = np.asarray(means), edges_of_t(T)
        drawn, middle = heights.clip(min=0), (edges[:-1] + edges[1:]) / 2
        moments = {"num": drawn.sum(), "sum": drawn @ middle, "sum_squares": drawn @ middle**2}
        self.experiment.add_histogram_raw(
            name, edges[0], edges[-1], **moments, bucket_limits=edges[1:], bucket_counts=drawn, global_step=step
        )

    def how_to_look(self) -> list[str]:
        return [f"look at the run:           tensorboard --logdir {shlex.quote(str(Path(self.log_dir)))}"]
