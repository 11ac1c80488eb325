"""Everything random is a function of a key: the seed and what is being computed, never how long a process has lived."""

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """A 64-bit seed; different keys of the same length give independent streams."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator on `device` seeded by the key."""
    return torch.Generator(device).manual_seed(seed_of(*key))
