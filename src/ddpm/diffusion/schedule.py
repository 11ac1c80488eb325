"""Variance schedules: each function returns beta_1, ..., beta_T as a float64 vector whose element 0 is beta_1.

`rescale=True` multiplies the endpoints by 1000 / T, so that the noise at the end does not depend on T
(Nichol & Dhariwal 2021); the original keeps them, whatever T is.

Each raises ValueError for fewer than two steps, and for a beta or another parameter outside of its range.
"""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

Betas = Float64[Tensor, " T"]


def linear(T: int, beta_1: float = 1e-4, beta_T: float = 0.02, rescale: bool = False) -> Betas:
    """beta_t is linear in t; Ho et al. 2020, section 4."""
    first, last = _endpoints(T, beta_1, beta_T, rescale)
    return torch.linspace(first, last, T, dtype=torch.float64)


def quadratic(T: int, beta_1: float = 1e-4, beta_T: float = 0.02, rescale: bool = False) -> Betas:
    """sqrt(beta_t) is linear in t; Ho et al. 2020, appendix B."""
    first, last = _endpoints(T, beta_1, beta_T, rescale)
    return torch.linspace(first**0.5, last**0.5, T, dtype=torch.float64).square()


def constant(T: int, beta_T: float = 0.02, rescale: bool = False) -> Betas:
    """beta_t = beta_T for every t; Ho et al. 2020, appendix B."""
    return torch.full((T,), _endpoints(T, beta_T, beta_T, rescale)[1], dtype=torch.float64)


def warmup10(T: int, beta_1: float = 1e-4, beta_T: float = 0.02, rescale: bool = False) -> Betas:
    """beta_t is linear over the first tenth of the steps, then constant; code of Ho et al. 2020."""
    return _warmup(T, T // 10, beta_1, beta_T, rescale)


def warmup50(T: int, beta_1: float = 1e-4, beta_T: float = 0.02, rescale: bool = False) -> Betas:
    """beta_t is linear over the first half of the steps, then constant; code of Ho et al. 2020."""
    return _warmup(T, T // 2, beta_1, beta_T, rescale)


def jsd(T: int, max_beta: float = 0.999) -> Betas:
    """beta_t = 1 / (T - t + 1); Sohl-Dickstein et al. 2015.

    beta_T would be 1, so that x_T kept nothing of x_0 and alpha_bar_T = 0 would be divided by (the original does so):
    it is cut to `max_beta`.
    """
    _check_T(T)
    _check_beta("max_beta", max_beta)
    return torch.arange(T, 0, -1, dtype=torch.float64).reciprocal().clamp(max=max_beta)


def cosine(T: int, offset: float = 0.008, max_beta: float = 0.999, snr_scale: float = 1.0) -> Betas:
    """alpha_bar_t is proportional to cos^2((t/T + offset) / (1 + offset) pi/2); Nichol & Dhariwal 2021, Eq. (17).

    `snr_scale` multiplies alpha_bar_t / (1 - alpha_bar_t). Neighbouring pixels of large images agree, so that the same
    noise hides less: (64 / side)^2 makes up for it (Hoogeboom, Heek and Salimans 2023, "shifted cosine").
    """
    _check_T(T)
    _check_beta("max_beta", max_beta)
    if not 0 < offset < math.inf:
        raise ValueError(f"offset={offset} must be a positive number, as 0.008")
    if not 0 < snr_scale < math.inf:
        raise ValueError(f"snr_scale={snr_scale} must be a positive number, as 0.25")
    u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    alpha_bar = torch.cos((u + offset) / (1 + offset) * math.pi / 2).square()
    if snr_scale != 1:
        signal = snr_scale * alpha_bar / alpha_bar[0]
        alpha_bar = signal / (signal + 1 - alpha_bar / alpha_bar[0])
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta)


def sigmoid(T: int, beta_1: float = 1e-4, beta_T: float = 0.02, rescale: bool = False) -> Betas:
    """beta_t is a logistic curve over [-6, 6], scaled to the endpoints within 0.25 %; code of Song et al. 2021."""
    first, last = _endpoints(T, beta_1, beta_T, rescale)
    return first + (last - first) * torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid()


def _warmup(T: int, length: int, beta_1: float, beta_T: float, rescale: bool) -> Betas:
    first, last = _endpoints(T, beta_1, beta_T, rescale)
    betas = torch.full((T,), last, dtype=torch.float64)
    betas[:length] = torch.linspace(first, last, length, dtype=torch.float64)
    return betas


def _endpoints(T: int, beta_1: float, beta_T: float, rescale: bool) -> tuple[float, float]:
    _check_T(T)
    _check_beta("beta_1", beta_1)
    _check_beta("beta_T", beta_T)
    scale = 1000 / T if rescale else 1.0
    largest = max(beta_1, beta_T)
    if largest * scale >= 1:
        raise ValueError(
            f"rescale=True makes beta {largest * scale:g} at T={T}, and it must stay below 1: "
            f"use T > {1000 * largest:g}, a smaller beta_T, or rescale=False"
        )
    return beta_1 * scale, beta_T * scale


def _check_T(T: int) -> None:
    if T < 2:
        raise ValueError(f"T={T} is too few diffusion steps: use at least 2")


def _check_beta(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} must lie between 0 and 1, both excluded")
