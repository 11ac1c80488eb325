import pytest
from slurm import Slurm


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A cluster of two nodes with two CPUs each."""
    with Slurm(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster
