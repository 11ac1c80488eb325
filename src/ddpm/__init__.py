"""Denoising diffusion probabilistic models (Ho, Jain and Abbeel 2020).

A notebook finds here what it needs; each name is imported when it is first used.

Example:
    run = ddpm.train("recipe=digits", "max_steps=500")
    ddpm.evaluate(run).metrics["fid"]
    p = ddpm.load("runs/latest")  # the reverse process; p.q is the forward process
    images = ddpm.sample(p, (16, 1, 8, 8))  # uint8
    ddpm.bits_per_dim(p, images)  # of each image
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm.diffusion.condition import DROPPED, Condition
    from ddpm.diffusion.guidance import AutoGuidance, ClassifierFree
    from ddpm.diffusion.process import ForwardProcess
    from ddpm.diffusion.reverse import ReverseProcess
    from ddpm.diffusion.sampler import Ancestral
    from ddpm.library import Run, bits_per_dim, evaluate, load, multirun, sample, train
    from ddpm.samplers.ddim import DDIM
    from ddpm.samplers.deis import DEIS
    from ddpm.samplers.dpm_solver import DPMSolver, DPMSolver2S
    from ddpm.samplers.heun import Heun
    from ddpm.samplers.sa_solver import SASolver
    from ddpm.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "DEIS",
    "DROPPED",
    "Ancestral",
    "AutoGuidance",
    "ClassifierFree",
    "Condition",
    "DPMSolver",
    "DPMSolver2S",
    "ForwardProcess",
    "Heun",
    "ReverseProcess",
    "Run",
    "SASolver",
    "UniPC",
    "bits_per_dim",
    "evaluate",
    "load",
    "multirun",
    "sample",
    "train",
]

_HOME = {
    **dict.fromkeys(("Run", "bits_per_dim", "evaluate", "load", "multirun", "sample", "train"), "ddpm.library"),
    **dict.fromkeys(("DPMSolver", "DPMSolver2S"), "ddpm.samplers.dpm_solver"),
    **dict.fromkeys(("AutoGuidance", "ClassifierFree"), "ddpm.diffusion.guidance"),
    "Ancestral": "ddpm.diffusion.sampler",
    "DDIM": "ddpm.samplers.ddim",
    "DEIS": "ddpm.samplers.deis",
    **dict.fromkeys(("DROPPED", "Condition"), "ddpm.diffusion.condition"),
    "ForwardProcess": "ddpm.diffusion.process",
    "Heun": "ddpm.samplers.heun",
    "ReverseProcess": "ddpm.diffusion.reverse",
    "SASolver": "ddpm.samplers.sa_solver",
    "UniPC": "ddpm.samplers.unipc",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("ddpm-lab")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
