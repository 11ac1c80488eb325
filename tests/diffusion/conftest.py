import pytest
import torch
from hypothesis import settings

settings.register_profile("ddpm", deadline=None, max_examples=25)
settings.load_profile("ddpm")


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors are tiny here, and threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
