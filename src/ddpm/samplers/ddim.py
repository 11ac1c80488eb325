"""DDIM, of which the ancestral chain is one end and a deterministic chain the other; Song et al. 2021."""

from typing import final

from ddpm.diffusion.process import Batch, ForwardProcess, Time
from ddpm.diffusion.sampler import Sampler, Times, Visit


@final
class DDIM(Sampler):
    """DDIM: x_s ~ q_sigma(x_s | x_t, x_0) at the x_0 estimate, sigma^2 = eta^2 beta~; Song et al. 2021, Eqs. 12, 16.

    epsilon is derived from the clipped x_0, so that eta = 1 over all T steps is `Ancestral` with fixed_small. The
    variance of p_theta plays no part.

    Raises:
        ValueError: eta is not in [0, 1].
    """

    def __init__(
        self, steps: int | None = 50, eta: float = 0.0, spacing: str = "uniform", times: Times | None = None
    ) -> None:
        super().__init__(steps, spacing, times)
        self.eta = checked_eta(eta)

    @property
    def label(self) -> str:
        return f"DDIM η = {self.eta:g}"

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def step(self, q: ForwardProcess, here: Visit, s: Time, noise: Batch) -> Batch:
        return q.implicit_posterior(here.estimate.x_0, here.x_t, here.t, s, self.eta).sample(noise)


def checked_eta(eta: float) -> float:
    """The share eta of the ancestral chain's noise.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta} must lie in [0, 1]: 0 is deterministic, 1 ancestral")
    return eta
