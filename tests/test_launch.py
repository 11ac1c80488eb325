"""Where a run computes is said by its settings, not by what else there is on the machine."""

import warnings

import pytest
import torch

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


def test_processes_are_counted_over_all_machines():
    settings = compose(["trainer.accelerator=cpu", "trainer.devices=3", "trainer.num_nodes=2", "trainer.strategy=ddp"])
    settings.trainer.precision = "32-true"
    assert launch.count_processes(settings.trainer) == 6


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["trainer.accelerator=abacus"], "accelerator=abacus, devices="),
        (["trainer.accelerator=cpu", "trainer.devices=0"], "devices=0, strategy="),
        (["trainer.accelerator=cpu", "trainer.strategy=together"], "strategy=together, precision="),
        (["trainer.accelerator=cpu", "trainer.precision=33"], "precision=33 is not possible here"),
    ],
)
def test_a_trainer_that_cannot_be_is_refused_with_what_was_asked_for(words, asked):
    settings = compose(words).trainer
    if settings.precision == "auto":
        settings.precision = "32-true"
    with pytest.raises(ValueError, match=f"a trainer with .*{asked}"):
        launch.count_processes(settings)


@pytest.mark.parametrize(("here", "there"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_holds_everywhere_holds_here_and_there(here, there, monkeypatch):
    """Two processes must agree, and the answer of the other is known here; a process that is alone asks nobody."""

    def all_reduce(flag, op):
        of_both = {torch.distributed.ReduceOp.MIN: min, torch.distributed.ReduceOp.MAX: max}[op]
        flag.fill_(of_both(int(flag), int(there)))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    cpu = torch.device("cpu")
    assert launch.Rank(0, 2, cpu).everywhere(here) is (here and there)
    assert launch.Rank(0, 1, cpu).everywhere(here) is here
    assert (launch.Rank(0, 1, cpu).described, launch.Rank(0, 3, cpu).described) == ("one process", "3 processes")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
        torch.distributed.DistBackendError("NCCL communicator was aborted"),
    ],
    ids=["gloo", "NCCL"],
)
def test_the_end_of_another_process_is_said_as_such(error):
    with pytest.raises(RunFailedError) as end, launch.sharing("go on"):
        raise error
    assert str(end.value) == "another process of this job has ended, so that it cannot go on; go on"


def test_a_mistake_in_the_work_itself_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as end, launch.sharing("go on"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not isinstance(end.value, RunFailedError)
