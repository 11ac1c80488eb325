"""Power-function averages are kept while training, for an average of any length afterwards (Karras et al. 2024)."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm.checkpoints.power_function import decay_of, gamma_of


class PowerFunctionAverages(nn.ModuleList):
    """Copies of a network, each with the power-function average of its weights over the steps so far.

    Args:
        lengths: sigma_rel of each.
    """

    def __init__(self, network: nn.Module, lengths: Sequence[float]) -> None:
        super().__init__(copy.deepcopy(network).requires_grad_(False).eval() for _ in lengths)
        self._gammas = [gamma_of(length) for length in lengths]
        self._averages = [list(each.parameters()) for each in self]

    def update(self, weights: Sequence[Tensor], step: int) -> None:
        """Take in the weights after an optimizer step, the first of which is 1."""
        for gamma, averages in zip(self._gammas, self._averages, strict=True):
            get_ema_multi_avg_fn(decay_of(gamma, step))(averages, weights, None)  # type: ignore[no-untyped-call]
