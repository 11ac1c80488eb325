import multiprocessing

import pytest
from slurm import Slurm


@pytest.fixture(scope="session")
def nodes(tmp_path_factory):
    """A cluster of two nodes with two CPUs each."""
    with Slurm(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


@pytest.fixture
def slurm(nodes):
    """The same, without the jobs of other tests."""
    yield nodes
    for left in multiprocessing.active_children():  # by a test that failed
        left.kill()
    nodes.clear()
