"""TODO"""

import contextlib
from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException


class RequestError(Exception):
    """What was asked for cannot be done: one readable line, exit code 2."""


class RefusedError(RequestError):
    """Every word of the request is right and their combination cannot work: a sweep keeps it as a refused cell."""


@contextlib.contextmanager
def request_errors() -> Iterator[None]:
    """Building what was asked for: what cannot be built, found, imported or held in memory is the request's fault."""
    try:
        yield
    except (ValueError, OSError, ImportError, TypeError, RuntimeError, MemoryError, OmegaConfBaseException) as error:
        raise RequestError(root_message(error)) from error


def root_message(error: BaseException) -> str:
    """The message of the first cause, on one line."""
    while error.__cause__ is not None and isinstance(error, (HydraException, OmegaConfBaseException)):
        error = error.__cause__
    return first_line(error)


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
