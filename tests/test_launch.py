"""Where a run computes is said by its settings, not by what else there is on the machine."""

import warnings

import pytest

from ddpm import launch
from ddpm.config.compose import compose


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """SLURM's command, as on a login node."""
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_slurm_on_the_machine_is_no_warning(srun):
    settings = compose(["trainer.accelerator=cpu"]).trainer
    settings.precision = "32-true"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        launch.count_processes(settings)
        assert launch.launch(settings).world_size == 1
