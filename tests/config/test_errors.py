"""Errors become one line, and what is no error of the request does not."""

import errno
from pathlib import Path

import pytest
from omegaconf.errors import ConfigAttributeError

from ddpm.config.errors import MachineError, RequestError, request_errors


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)])
def test_a_signal_that_a_library_makes_an_error_of_is_still_a_signal(end):
    def library():
        try:
            raise end
        except BaseException:
            raise ConfigAttributeError("'NoneType' object has no attribute 'flags'")  # noqa: B904

    with pytest.raises(type(end)), request_errors():
        library()


def test_the_first_cause_is_what_is_said():
    def library():
        try:
            raise ValueError("the cause\nand more")
        except ValueError as error:
            raise ConfigAttributeError("wrapped") from error

    with pytest.raises(RequestError) as caught, request_errors():
        library()
    assert str(caught.value) == "the cause"


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a mistake"),
        RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_an_error_of_the_code_keeps_its_traceback(error):
    with pytest.raises(type(error)), request_errors():
        raise error


@pytest.mark.parametrize(
    "message",
    [
        "No CUDA GPUs are available",
        "Found no NVIDIA driver on your system",
        "CUDA error: invalid device ordinal",
        "PyTorch is not linked with support for mps devices",
    ],
)
def test_what_the_machine_lacks_is_said_in_one_line(message):
    with pytest.raises(RequestError) as caught, request_errors():
        raise RuntimeError(message)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 1"),
        MemoryError("Unable to allocate 8 EiB"),
        OSError(errno.ENOSPC, "No space left on device", "a.npy"),
    ],
)
def test_too_little_memory_or_disk_is_no_fault_of_the_request(error):
    """A sweep counts such a cell as failed, and tries it again: what is refused is settled."""
    with pytest.raises(MachineError) as caught, request_errors():
        raise error
    assert caught.value.code == 1
    assert str(caught.value) == str(error)


def test_a_missing_file_is_a_fault_of_the_request():
    with pytest.raises(RequestError) as caught, request_errors():
        Path("/nowhere").read_text()
    assert caught.value.code == 2
    assert not isinstance(caught.value, MachineError)


def test_a_ring_of_causes_ends():
    first, second = ConfigAttributeError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    with pytest.raises(RequestError) as caught, request_errors():
        raise first
    assert str(caught.value) == "second"
