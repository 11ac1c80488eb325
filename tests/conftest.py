import os

import pytest
import torch

os.environ.setdefault("WANDB_MODE", "offline")

# Tensors are small in the tests, in this process and in those that it starts: threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_xdist_auto_num_workers():
    """One more than there are cores: many a test waits for processes that it started."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty current directory: runs/ is made under it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
