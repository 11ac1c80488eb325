"""Which t the network is evaluated at: distributions over 1..T for training, and grids of distinct times."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddpm.diffusion.wide import wide


class Timesteps(nn.Module, ABC):
    """A distribution of t in 1..T whose weights make (weight * loss).mean() an unbiased estimate under uniform t."""

    adaptive: ClassVar[bool]  # whether `update` does anything
    unbiased: ClassVar[bool] = True  # False: weights are 1, and the estimate is that under its own distribution

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        """n draws of t and their weights, on the generator's device."""

    def update(self, t: Int64[Tensor, " m"], loss: Float[Tensor, " m"]) -> None:
        """Learn from the unweighted losses of one step: those of all processes, in the same order in each of them."""
        assert not self.adaptive


@final
class Uniform(Timesteps):
    """t is drawn from Uniform({1, ..., T}); Algorithm 1."""

    adaptive = False

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T

    def sample(self, n: int, generator: torch.Generator) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        t = torch.randint(1, self.T + 1, (n,), generator=generator, device=generator.device)
        return t, torch.ones(n, device=t.device)


@final
class LossSecondMoment(Timesteps):
    """p_t is proportional to sqrt(E[L_t^2]) over the last `history` losses at t; Nichol & Dhariwal 2021, Eq. (18).

    Draws are uniform until every t has its full history, and afterwards a share of `uniform_share` of them is. Losses
    that are not finite are ignored. No step waits for the device.

    Raises:
        ValueError: `history` or `uniform_share` is outside of its range.
    """

    adaptive = True
    losses: Float[Tensor, "T+1 history"]  # row t is a ring; row 0 takes what is passed over
    count: Int64[Tensor, " T+1"]

    def __init__(self, T: int, history: int = 10, uniform_share: float = 0.001) -> None:
        super().__init__()
        if history < 1:
            raise ValueError(f"history={history} must be at least 1")
        if not 0 < uniform_share <= 1:
            raise ValueError(f"uniform_share={uniform_share} must lie in (0, 1]: at 0 some t would never be seen again")
        self.T, self.history, self.uniform_share = T, history, uniform_share
        self.register_buffer("losses", torch.zeros(T + 1, history))
        self.register_buffer("count", torch.zeros(T + 1, dtype=torch.int64))

    def probabilities(self) -> Float[Tensor, " T"]:
        """p_1, ..., p_T, which sum to 1."""
        # A share of 0.001 / T is lost in the rounding of a float32 sum.
        root = wide(self.losses[1:], self.losses.device).square().mean(1).sqrt() + 1e-30
        p = (1 - self.uniform_share) * root / root.sum() + self.uniform_share / self.T
        warm = (self.count[1:] >= self.history).all()
        return torch.where(warm, p, torch.full_like(p, 1 / self.T))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        p = self.probabilities().to(generator.device)
        u = torch.rand(n, generator=generator, device=generator.device, dtype=p.dtype)
        index = torch.searchsorted(p.cumsum(0), u, right=True).clamp(max=self.T - 1)
        return index + 1, (1 / (self.T * p[index])).float()

    @torch.no_grad()
    def update(self, t: Int64[Tensor, " m"], loss: Float[Tensor, " m"]) -> None:
        t = torch.where(loss.isfinite(), t, 0)
        same = t[:, None] == t[None, :]
        earlier, later = same.tril(-1).sum(1), same.triu(1).sum(1)
        slot = (self.count[t] + earlier) % self.history
        row = torch.where(later < self.history, t, 0)  # only the last `history` of a t that comes more often
        self.losses[row, slot] = loss.to(self.losses.dtype)
        self.losses[0] = 0
        self.count.index_add_(0, t, torch.ones_like(t))


def grid(first: int, last: int, n: int, curve: Callable[[float], float]) -> list[int]:
    """n distinct whole numbers from `first` to `last`, spaced like `curve`, which rises from 0 to 1 on [0, 1].

    Where the curve asks for the same number twice, the next one is taken, and earlier ones where there is no next.
    """
    if n == 1:
        return [last]
    values = [first]
    for i in range(1, n):
        wish = first + (last - first) * curve(i / (n - 1))
        values.append(min(max(values[-1] + 1, round(wish)), last - (n - 1 - i)))
    return values
