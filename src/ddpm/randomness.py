"""Everything random is a function of a key: the seed and what is being computed, never how long a process has lived."""

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """A 64-bit seed that is a function of the key; different keys of the same length give independent streams."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator on `device` seeded by the key."""
    return torch.Generator(device).manual_seed(seed_of(*key))


def seed_dropout(device: torch.device, *key: int) -> None:
    """Seed PyTorch's own generator of `device`, from which dropout draws, by the key.

    torch.manual_seed would do so for every kind of device, and record a traceback for each that is not in use, which
    takes two milliseconds.
    """
    seed = seed_of(*key)
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.get_device_module(device).manual_seed(seed)
