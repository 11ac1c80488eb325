"""A GPU that is not there: tensors that claim to be on it, compute on the CPU, and refuse to meet those that are not.

It can be like Apple's, which have no float64.

For placement alone: what would stop on a GPU with "expected all tensors to be on the same device" stops here. There is
no backward pass, whose engine wants the device itself.
"""

import contextlib
import functools

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

from ddpm.diffusion import wide

DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten
CROSSING = (aten._to_copy.default, aten.copy_.default, aten._local_scalar_dense.default)
NO_FLOAT64 = "this device has no float64"
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class Elsewhere(torch.Tensor):
    """`inner`, as a tensor of DEVICE."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=inner.device,
            dispatch_device=True,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Elsewhere({self.inner})"

    def __format__(self, how):
        return format(self.inner, how)

    def tolist(self):
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Everywhere(TorchDispatchMode):
    """Sees what is made from nothing, too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        self.claimed = torch.device(device)
        return self

    @property
    def device(self):
        return self.claimed


def compute(func, args, kwargs):
    if func is torch.ops.prim.device.default:
        return DEVICE
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    there = any(isinstance(each, Elsewhere) for each in tensors)
    strangers = [each for each in tensors if not isinstance(each, Elsewhere) and each.ndim > 0]
    allowed = func in CROSSING or (func in INDEXING and isinstance(args[0], Elsewhere))
    if there and strangers and not allowed:
        raise RuntimeError(f"{func}: tensors on the CPU and elsewhere: {tensors}")
    narrow, wider = DEVICE.type in wide.WITHOUT_FLOAT64, kwargs.get("dtype") is torch.float64
    if narrow and wider and there:  # on its way to the CPU, too
        raise TypeError(f"{func}: {NO_FLOAT64}")
    if "device" in kwargs and kwargs["device"] is not None:
        there = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*_inner(args), **{name: _inner(value) for name, value in kwargs.items()})
    if func is aten.copy_.default:
        return args[0]
    if not there:
        return out
    if narrow and any(each.dtype is torch.float64 for each in _tensors([out])):
        raise TypeError(f"{func}: {NO_FLOAT64}")
    wrapped = tree_map_only(torch.Tensor, Elsewhere, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if _aliases(func) else wrapped


@functools.cache
def _aliases(func):
    """Tell whether an operator gives a view of an argument, or writes to one."""
    return any(each.alias_info is not None for each in (*func._schema.arguments, *func._schema.returns))


def _tensors(values):
    """Find the tensors among an operator's arguments, and in the lists among these."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _inner(value):
    """Replace the tensors that claim to be elsewhere by those that compute for them."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_inner, value))
    return value.inner if isinstance(value, Elsewhere) else value


@contextlib.contextmanager
def pretended(monkeypatch, float64=True):
    """While it lasts, modules, tensors and generators can be on DEVICE, which may have no float64."""
    if not float64:
        monkeypatch.setattr(wide, "WITHOUT_FLOAT64", {DEVICE.type})
    tensor = torch.tensor

    def made(*args, device=None, pin_memory=False, **kwargs):  # the only factory that is not dispatched
        values = tensor(*args, **kwargs)
        return values if device is None else values.to(device)

    torch._C._ensureCUDADeviceGuardSet()
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "tensor", made)
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter stays the same object
    try:
        with Everywhere():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
