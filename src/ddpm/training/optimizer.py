"""The optimizer: Adam, as in the paper, and on request Muon for the weights that are matrices."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddpm.networks.network import Network

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
NARROWEST = 8  # rows, and input channels, of a matrix; a narrower layer is taken for a first or last one


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam with linear warm-up from 0 and a bound on the gradient's global norm; Ho et al. 2020, appendix B.

    Attributes:
        lr: the learning rate after warm-up.
        warmup: steps over which it rises.
        grad_clip: the largest norm of the gradient of all weights together.
        anneal: the learning rate falls linearly to 0 at the last step (Nichol & Dhariwal 2021); the original keeps it.
        muon_lr: the learning rate of `AdamWithMuon` for matrices, which rises and falls as `lr` does; None: Adam alone.
    """

    lr: float
    warmup: int
    grad_clip: float
    anneal: bool = False
    muon_lr: float | None = None

    def factor(self, step: int, max_steps: int) -> float:
        """Multiplier of the learning rates after `step` optimizer updates; 0 at step 0, as in the original's code."""
        warm = min(step / self.warmup, 1.0) if self.warmup else 1.0
        return warm * (1 - step / max_steps if self.anneal else 1.0)

    def optimizer(self, module: nn.Module) -> torch.optim.Adam:
        """A fresh optimizer of all weights of the module."""
        if self.muon_lr is None:
            return torch.optim.Adam(module.parameters(), self.lr, fused=True)
        return AdamWithMuon(module, self.lr, self.muon_lr)


class AdamWithMuon(torch.optim.Adam):
    """Updates hidden matrices by Muon, and all other weights by Adam.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) moves a matrix along its averaged gradient
    with all singular values brought close to 1, so that no direction is much faster than another. The weight of a
    convolution counts as a matrix of output channels x (input channels * height * width). Muon is for hidden layers:
    those that read the image or give it, embeddings, biases and norms are Adam's.

    `torch.optim.Muon` takes no convolutions, and multiplies in bfloat16, which a CPU without it does ten times as
    slowly. Here matrices of one shape are multiplied together, in float32.
    """

    def __init__(self, module: nn.Module, lr: float, muon_lr: float) -> None:
        matrices = hidden_matrices(module)
        of_muon = {*matrices}
        others = [weight for weight in module.parameters() if weight not in of_muon]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": matrices, "lr": muon_lr, "momentum": MOMENTUM}]
        super().__init__(groups, lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure else None
        gradients = {weight: weight.grad for weight in self.param_groups[1]["params"] if weight.grad is not None}
        for weight in gradients:
            weight.grad = None  # Adam passes over it
        super().step()
        for weight, gradient in gradients.items():
            weight.grad = gradient
            if not (state := self.state[weight]):
                state["step"] = torch.zeros((), device=weight.device)  # Adam expects one of every state that it loads
                state["exp_avg"] = torch.zeros_like(weight)
        if not getattr(self, "found_inf", None):  # of a GradScaler: gradients that overflowed in float16
            self._move(gradients)
        return loss

    def _move(self, gradients: dict[Tensor, Tensor]) -> None:
        """Update these weights by Muon."""
        same: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, gradient in gradients.items():
            state = self.state[weight]
            state["step"] += 1
            state["exp_avg"].lerp_(gradient, 1 - MOMENTUM)
            direction = gradient.lerp(state["exp_avg"], MOMENTUM).flatten(1)  # Nesterov's look ahead
            same[len(direction), direction.shape[1]].append((weight, direction))
        for (rows, columns), found in same.items():
            rate = self.param_groups[1]["lr"] * max(1.0, rows / columns) ** 0.5
            moves = orthogonalized(torch.stack([direction for _, direction in found]))
            for (weight, _), move in zip(found, moves, strict=True):
                weight.add_(move.view_as(weight), alpha=-rate)


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """Return the weights of the linear and convolutional layers that lie between others, embeddings' excepted.

    Both sides of such a layer are wide, and it is none of its network's `outer` layers. A weight that is computed of
    others, as in `torch.nn.utils.parametrizations`, is no weight that an optimizer could move.
    """
    modules = list(module.modules())
    others: list[nn.Module] = [each for each in modules if isinstance(each, nn.Embedding)]
    for network in modules:
        if isinstance(network, Network):
            others += [network.get_submodule(name) for name in network.outer]
    layers = [layer for layer in modules if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    left_out = set(_weights(others))
    weights = dict.fromkeys(_weights(layers))
    return [weight for weight in weights if weight not in left_out and min(weight.shape[:2]) >= NARROWEST]


def _weights(layers: Iterable[nn.Module]) -> list[Tensor]:
    """The weights that are parameters; computing one that is not could change its layer, as `spectral_norm` does."""
    own = (dict(layer.named_parameters(recurse=False)).get("weight") for layer in layers)
    return [weight for weight in own if weight is not None]


def orthogonalized(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Bring the singular values of each matrix to between 0.6 and 1.25, except those far below its largest.

    Five Newton-Schulz iterations do so without a decomposition (Jordan et al. 2024): the matrix is divided by its
    Frobenius norm, so that its singular values are at most 1, and each iteration applies an odd polynomial to them.
    """
    if tall := matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mT
    a, b, c = COEFFICIENTS
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
