import os
from pathlib import Path

import pytest

os.environ.setdefault("WANDB_MODE", "offline")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty current directory: runs/ is made under it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
