"""What the device that computes can do, for settings that depend on it (`auto`), and how it is set up to do it fast."""

import ctypes
import platform
import shutil
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn


def device_type(accelerator: str) -> str:
    """The type of device on which Lightning's `accelerator` would compute: cuda, mps, ..., or cpu."""
    found = None if accelerator == "cpu" else torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"


def multiplies_bfloat16(device: str) -> bool:
    """Whether a device of this type multiplies bfloat16 in hardware, at a higher rate than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # not in torch 2.11
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB that it freed, where its C library is glibc.

    glibc gives the activations of a training step back to the system, which clears every page of them anew in the next
    one: 7 to 12 % of a step on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3  # malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def narrow_attention() -> None:
    """Let attention multiply in bfloat16 where the network does; PyTorch's kernel for CPUs would compute in float32."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)


def prepare_for_evaluation(network: nn.Module, bf16: bool) -> None:
    """Change the network in place for fast forward passes; it cannot be trained afterwards.

    The layout channels_last is a quarter faster on a CPU. With `bf16`, weights that autocast would convert each time
    are kept in bfloat16, which saves a CPU 6 % of its time, and small maps are normalised in float32, which saves 2 %.
    """
    network.to(memory_format=torch.channels_last)
    if bf16:
        narrow_attention()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
            elif isinstance(module, nn.GroupNorm) and module.num_channels < 16 * module.num_groups:
                module.register_forward_pre_hook(_widen_small_maps)


def _widen_small_maps(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """GroupNorm of few channels a group is up to ten times as slow in bfloat16, channels last, below 32x32 on a CPU."""
    (x,) = inputs
    return (x.float() if x.device.type == "cpu" and x[0, 0].numel() < 1024 else x,)


PRECISIONS = ("32-true", "bf16-mixed")  # of an evaluation


def check_precision(precision: str) -> None:
    """Refuse a precision in which nothing is evaluated.

    Raises:
        ValueError: it is such a one.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"evaluation.precision={precision}: use {' or '.join(PRECISIONS)}")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The context in which the network is evaluated: bfloat16 where the precision says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def require_compiler() -> None:
    """Check that there is the C++ compiler that torch.compile needs.

    Raises:
        ValueError: there is none.
    """
    if not any(map(shutil.which, ("g++", "clang++"))):
        raise ValueError(
            "trainer.compile needs a C++ compiler, and neither g++ nor clang++ is here: install one, or leave it out"
        )


def peak_memory(device: torch.device) -> int | None:
    """The most memory that was in use so far, in bytes: of a GPU its own, otherwise this process's; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
