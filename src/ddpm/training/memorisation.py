"""Are the training images learned by heart? Their bound beside the held-out images', at every validation."""

from collections.abc import Callable

import lightning as L

from ddpm.data.module import DataModule
from ddpm.messages import warn
from ddpm.training.bound import EstimatedBound
from ddpm.training.by_heart import Curve, how_learned_by_heart, learned_by_heart
from ddpm.training.module import DiffusionModule
from ddpm.training.monitor import held_out_bound_name, training_bound_name
from ddpm.training.validation import AfterValidation

REMEDY = (
    "the best weights so far are those of checkpoints/best.ckpt; more images, network.dropout or data.horizontal_flip "
    "help, stop.patience=2 would end the run, and figures=[nearest_neighbours] shows whether samples are copies"
)


class Memorisation(AfterValidation):
    """Logs the bound of training images as validations estimate that of held-out ones, and warns once if they part.

    It judges by the validations since the run started or went on; `ddpm diagnose` judges by all of them.

    Args:
        between: called before each batch; it may end the run by raising.
    """

    def __init__(self, between: Callable[[L.Trainer], None]) -> None:
        self.between = between
        self._held_out: Curve = ([], [])
        self._training: Curve = ([], [])
        self._warned = False

    def after_validation(self, trainer: L.Trainer, module: DiffusionModule, step: int) -> None:
        data, T = getattr(trainer, "datamodule", None), module.p.q.T
        assert isinstance(data, DataModule)
        bound = EstimatedBound(module.p_ema, module.seed)
        bound.over(data.train_subset_dataloader(), trainer, lambda: self.between(trainer))
        module.log_validated({training_bound_name(T): bound.compute(module.sum_over_processes).bits_per_dim}, step)
        for curve, name in ((self._held_out, held_out_bound_name(T)), (self._training, training_bound_name(T))):
            curve[0].append(float(step))
            curve[1].append(module.validated[name])
        if not self._warned and (found := learned_by_heart(self._held_out, self._training)):
            self._warned = True
            warn(f"{how_learned_by_heart(self._held_out, self._training, *found)}; {REMEDY}")
