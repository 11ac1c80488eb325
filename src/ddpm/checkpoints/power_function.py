"""Power-function averages of the weights: what each weighs, and how one is made of others.

Karras et al. 2024 (Analyzing and Improving the Training Dynamics of Diffusion Models), section 3 and appendix C. The
average after t steps weighs the weights of step tau in proportion to tau^gamma. Its length is sigma_rel, the standard
deviation of that profile as a share of t.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.05  # of the distance between the profile that is asked for and the one that is made, by `combination`


class Profile(NamedTuple):
    """The weights of an average: those of step tau in proportion to tau^gamma, for tau up to t."""

    t: int
    gamma: float


class Combination(NamedTuple):
    """A sum of averages that approximates another one."""

    coefficients: NDArray[np.float64]  # of each; together 1
    error: float  # the L2 distance between the two profiles, as a share of the norm of the one that is approximated


def gamma_of(length: float) -> float:
    """The exponent gamma > 0 of a length sigma_rel in (0, 12^-1/2), by appendix C.1.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), of which it is the largest root.
    """
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def decay_of(gamma: float, step: int) -> float:
    """The share of the old average in that after `step` steps, (1 - 1/step)^(gamma + 1): the first keeps nothing.

    The average then weighs the weights of step i by the integral of its profile from i - 1 to i, exactly.
    """
    return float((1 - 1 / step) ** (gamma + 1))


def products(a: Sequence[Profile], b: Sequence[Profile]) -> NDArray[np.float64]:
    """The inner products [len(a), len(b)] of profiles: the integral over tau of one times the other (appendix C.2)."""
    t_a, gamma_a = np.array(a, np.float64).T[:, :, None]
    t_b, gamma_b = np.array(b, np.float64).T[:, None, :]
    shorter, longer = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    found: NDArray[np.float64] = (
        (gamma_a + 1)
        * (gamma_b + 1)
        * (shorter / longer) ** np.where(t_a < t_b, gamma_b, gamma_a)
        / ((gamma_a + gamma_b + 1) * longer)
    )
    return found


def combination(known: Sequence[Profile], wanted: Profile) -> Combination:
    """The combination of averages whose profile is nearest to the wanted one, by least squares (appendix C.2)."""
    gram, target = products(known, known), products(known, [wanted])[:, 0]
    norm = float(products([wanted], [wanted])[0, 0])
    scale = np.sqrt(np.diag(gram))  # unit vectors: late profiles are longer than early ones by orders of magnitude
    found = np.linalg.lstsq(gram / scale[:, None] / scale, target / scale, rcond=None)[0] / scale
    found = found / found.sum()
    squared = norm - 2 * found @ target + found @ gram @ found
    return Combination(found, float(np.sqrt(max(squared, 0.0) / norm)))


def within_reach(known: Sequence[Profile], t: int, lengths: Iterable[float]) -> list[tuple[float, float]]:
    """The intervals of these lengths, in order, to which a combination at step t comes within `TOLERANCE`."""
    reached = {length: combination(known, Profile(t, gamma_of(length))).error <= TOLERANCE for length in lengths}
    intervals = ([*interval] for is_reached, interval in itertools.groupby(reached, reached.__getitem__) if is_reached)
    return [(interval[0], interval[-1]) for interval in intervals]
