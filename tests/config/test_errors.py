"""Errors become one line, and what is no error of the request does not."""

import pytest
from omegaconf.errors import ConfigAttributeError

from ddpm.config.errors import RequestError, request_errors


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


def test_an_error_of_the_code_keeps_its_traceback():
    with pytest.raises(TypeError), request_errors():
        raise TypeError("a mistake")


def test_a_ring_of_causes_ends():
    first, second = ConfigAttributeError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    with pytest.raises(RequestError) as caught, request_errors():
        raise first
    assert str(caught.value) == "second"
