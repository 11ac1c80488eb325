import os

import pytest
import torch

os.environ.setdefault("WANDB_MODE", "offline")

# Tensors are small in the tests, in this process and in those that it starts: threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The files that take minutes come first, so that no worker is left alone with one of them at the end."""
    long = [
        "test_sweep",
        "test_main_path",
        "test_readme",
        "test_evaluation",
        "test_resume",
        "test_loggers",
        "test_engines",
    ]
    items.sort(key=lambda item: long.index(item.path.stem) if item.path.stem in long else len(long))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty current directory: runs/ is made under it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
