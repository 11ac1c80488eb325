"""Where a run computes is said by its settings, not by what else there is on the machine."""

import warnings

import pytest

from ddpm import launch
from ddpm.config.compose import compose
from ddpm.processes import RunFailedError


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "a.npy"), "No space left on device: a.npy; go on"),
        (ConnectionResetError("gone"), "gone; go on"),
        (OSError("1440 requested and 468 written"), "1440 requested and 468 written; go on"),
    ],
)
def test_a_file_that_cannot_be_written_ends_shared_work_in_a_line(error, said):
    with pytest.raises(RunFailedError) as end, launch.sharing("go on"):
        raise error
    assert str(end.value) == said


def test_a_reader_of_what_is_printed_that_has_gone_is_no_failure_of_the_work():
    with pytest.raises(BrokenPipeError), launch.sharing("go on"):
        raise BrokenPipeError


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_shared_work_that_is_stopped_says_how_it_goes_on(end, capsys, monkeypatch):
    for rank, said in (("0", "stopped; go on\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(type(end)), launch.sharing("go on"):
            raise end
        assert capsys.readouterr().err == said
