"""Are the training images learned by heart? Their bound beside the held-out images', at every validation."""

from collections.abc import Callable

import lightning as L

from ddpm.data.module import DataModule
from ddpm.training.module import DiffusionModule
from ddpm.training.monitor import seen_name
from ddpm.training.validation import AfterValidation


class Memorisation(AfterValidation):
    """Logs the bound of training images by the averaged weights, as validations estimate it of held-out ones.

    Args:
        between: called before each batch; it may end the run by raising.
    """

    def __init__(self, between: Callable[[L.Trainer], None]) -> None:
        self.between = between

    def after_validation(self, trainer: L.Trainer, module: DiffusionModule, step: int) -> None:
        data = getattr(trainer, "datamodule", None)
        assert isinstance(data, DataModule)
        module.estimate(module.seen, data.seen_dataloader(), lambda: self.between(trainer))
        found = module.seen.compute(module.sum_over_processes)
        module.log_validated({seen_name(module.p.q.T): found.bits_per_dim}, step)
