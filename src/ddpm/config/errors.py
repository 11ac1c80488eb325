"""What a wrong request raises, and how other errors become one line."""

import contextlib
import errno
from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

# What PyTorch's RuntimeErrors say where the machine lacks something. The word "device" alone is also in "Expected all
# tensors to be on the same device", which is a mistake in the code.
OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
OF_THE_MACHINE = (
    *OF_MEMORY,
    "CUDA GPUs are available",
    "NVIDIA driver",
    "CUDA driver",
    "no kernel image",
    "busy or unavailable",
    "invalid device ordinal",
    "not compiled with CUDA",
    "not linked with support for",
)

# Errors that say nothing against the file itself: the disk is full or broken, or the machine has no more to give.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


class RequestError(Exception):
    """What was asked for cannot be done: one readable line, exit code 2."""

    code = 2


class MachineError(RequestError):
    """The machine has too little memory or disk for the request, which may work elsewhere: one line, exit code 1."""

    code = 1


class RefusedError(RequestError):
    """Every word of the request is right and their combination cannot work: a sweep keeps it as a refused cell."""


@contextlib.contextmanager
def request_errors() -> Iterator[None]:
    """Turn what a request can be wrong with (values, files, missing packages) into a RequestError of one line.

    Too little memory or disk becomes a MachineError. A mistake in the code itself (a TypeError, an AttributeError, an
    import of our own that fails) keeps its traceback.
    """
    try:
        yield
    except MemoryError as error:
        raise MachineError(root_message(error)) from error
    except (ValueError, OSError, OmegaConfBaseException) as error:
        kind = MachineError if is_of_the_disk(error) else RequestError
        raise kind(root_message(error)) from error
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "ddpm":
            raise
        raise RequestError(root_message(error)) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in OF_THE_MACHINE):
            raise
        kind = MachineError if any(word in str(error) for word in OF_MEMORY) else RequestError
        raise kind(root_message(error)) from error


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an error says that a disk is full or broken, or that the machine can open no more files."""
    return isinstance(error, OSError) and error.errno in OF_THE_DISK


def advice_on(error: BaseException | None) -> str:
    """What to do about an error of the disk, to follow its message: "" where only its message says."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "; make room, and give the same command again" if full else ""


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
