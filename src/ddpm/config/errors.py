"""What a wrong request raises, and how other errors become one line."""

import contextlib
from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

# What PyTorch's RuntimeErrors say where the machine lacks something. The word "device" alone is also in "Expected all
# tensors to be on the same device", which is a mistake in the code.
OF_THE_MACHINE = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUDA GPUs are available",
    "NVIDIA driver",
    "CUDA driver",
    "no kernel image",
    "busy or unavailable",
    "invalid device ordinal",
    "not compiled with CUDA",
    "not linked with support for",
)


class RequestError(Exception):
    """What was asked for cannot be done: one readable line, exit code 2."""


class RefusedError(RequestError):
    """Every word of the request is right and their combination cannot work: a sweep keeps it as a refused cell."""


@contextlib.contextmanager
def request_errors() -> Iterator[None]:
    """Turn what a request can be wrong with (values, files, missing packages, memory) into a RequestError of one line.

    A mistake in the code itself (a TypeError, an AttributeError, an import of our own that fails) keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError, MemoryError, OmegaConfBaseException) as error:
        raise RequestError(root_message(error)) from error
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "ddpm":
            raise
        raise RequestError(root_message(error)) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in OF_THE_MACHINE):
            raise
        raise RequestError(root_message(error)) from error


def root_message(error: BaseException) -> str:
    """The message of the first cause, on one line.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came while a library worked, which has made an error of it.
    """
    link: BaseException | None = error
    chain: list[BaseException] = []
    while link is not None and link not in chain:  # libraries make rings of them
        if isinstance(link, KeyboardInterrupt | SystemExit):
            raise link
        chain.append(link)
        link = link.__cause__ or link.__context__
    while error.__cause__ is not None and isinstance(error, (HydraException, OmegaConfBaseException)):
        error = error.__cause__
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of a message that is not empty; the error's class where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
