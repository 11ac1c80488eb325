"""Pictures of a training: what it learns from, samples along the way, and a film of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import PIL.Image
import torch
from lightning.pytorch.callbacks import Callback
from PIL.Image import Image

from ddpm.data.dataset import Dataset, Examples
from ddpm.data.module import DataModule
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.guidance import Guidance, Unguided
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.figures import drawing
from ddpm.figures.plane import Told
from ddpm.loggers.loggers import log_film, log_picture
from ddpm.randomness import generator
from ddpm.training.module import DiffusionModule, is_whole_step

FILM_SECONDS = 5.0  # of a film, unless its frames would pass too quickly
FRAMES = 100  # of a film, at most: it is made in memory
OF_A_STEP = f"step_{'[0-9]' * 7}.png"  # the names of pictures

Draw = Callable[[ReverseProcess, Sampler, torch.Generator, Callable[[], None], Dataset, Told], Mapping[str, Image]]


class SamplePictures(Callback):
    """Draws samples of the averaged weights every `every` steps and at the end, always from the same noise.

    They go to FOLDER/NAME/step_*.png and to the loggers; so do a contact sheet of the training data, data.png, when the
    run begins, and training.gif, the samples one after the other, when it has ended.

    Args:
        data: what samples are samples of, and what the network is told of them.
        draw: makes the pictures, by name, in the run's precision: `Display.during_training`.
        sheet: makes the contact sheet: `Display.sheet`.
        guidance: of the samples, by default none.
        between: called after every step of the sampler; it may end the run by raising.
    """

    def __init__(
        self,
        folder: Path,
        sampler: Sampler,
        data: DataModule,
        draw: Draw,
        *,
        every: int,
        seed: int,
        sheet: Callable[[Examples], Image] | None = None,
        guidance: Guidance | None = None,
        between: Callable[[L.Trainer], None] = lambda _: None,
    ) -> None:
        self.folder, self.sampler, self.make, self.every, self.seed = folder, sampler, draw, every, seed
        self.data, self.guidance, self.between = data, guidance or Unguided(), between
        self.sheet = sheet

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            for file in self.folder.glob(f"*/{OF_A_STEP}"):  # of before, beyond what is gone on from
                if _step_of(file) > trainer.global_step:
                    file.unlink()
        if self.sheet and trainer.is_global_zero and not (file := self.folder / "data.png").exists():
            sheet = self.sheet(self.data.train)
            log_picture(trainer.loggers, "data", sheet, trainer.global_step)
            drawing.save(sheet, file)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if is_whole_step(trainer):
            self.draw(trainer, module, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.draw_last(trainer, module, trainer.global_step)
        files = sorted((self.folder / "samples").glob(OF_A_STEP))
        if trainer.is_global_zero and len(files) > 1:
            (film,) = drawing.write(self.folder, "training", film_of(files))
            log_film(trainer.loggers, "training", film, trainer.global_step)

    def draw(self, trainer: L.Trainer, module: L.LightningModule, step: int) -> None:
        """The pictures of this step, if they are due."""
        if step % self.every == 0 or step == trainer.max_steps:
            self._draw(trainer, module, step)

    def draw_last(self, trainer: L.Trainer, module: L.LightningModule, step: int) -> None:
        """The pictures of this step, if the run ends with it early and they were not due."""
        if trainer.should_stop and step % self.every and step != trainer.max_steps:
            self._draw(trainer, module, step)

    def _draw(self, trainer: L.Trainer, module: L.LightningModule, step: int) -> None:
        assert isinstance(module, DiffusionModule)
        noise = generator(module.device, self.seed)

        def told(count: int) -> Condition | None:
            return self.data.conditioning.shown(self.data.dataset, count)

        guided = self.guidance(module.p_ema).to(module.device)
        with trainer.precision_plugin.val_step_context():
            pictures = self.make(guided, self.sampler, noise, lambda: self.between(trainer), self.data.dataset, told)
        if trainer.is_global_zero:
            for name, picture in pictures.items():
                drawing.save(picture, self.folder / name / f"step_{step:07d}.png")
                log_picture(trainer.loggers, name, picture, step)


def film_of(files: Sequence[Path]) -> drawing.Film:
    """The pictures of these files, or of `FRAMES` of them, in turn, each with the step that its name says."""
    frames, last = [], len(files) - 1
    for file in dict.fromkeys(files[round(k * last / (FRAMES - 1))] for k in range(FRAMES)):
        with PIL.Image.open(file) as picture:
            frames.append(drawing.titled(picture.convert("RGB"), f"step {_step_of(file):,}"))
    return drawing.Film(frames, milliseconds=max(drawing.FRAME, min(500, round(1e3 * FILM_SECONDS / len(frames)))))


def _step_of(file: Path) -> int:
    return int(file.stem.removeprefix("step_"))
