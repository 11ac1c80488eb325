"""Functions for notebooks, which `import ddpm` offers beside the processes and samplers themselves."""

import math
import os
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import quote_paths
from ddpm.data.pixels import to_uint8, to_unit
from ddpm.diffusion.likelihood import evaluate_bound
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Ancestral, Sampler


def load(ckpt: str | os.PathLike[str], *overrides: str) -> ReverseProcess:
    """The reverse process p of a checkpoint, with its averaged weights and, as `p.q`, the forward process.

    Args:
        ckpt: whatever `evaluate.py ckpt=` takes: a run folder, a file, a diffusers folder, `hf://OWNER/NAME`.
        overrides: settings as on the command line, for what another codebase's file leaves open: "recipe=lsun_church".

    Raises:
        FileNotFoundError, ImportError, ValueError, ddpm.config.errors.RequestError: what is wrong with the checkpoint
            or the overrides, in one line.
    """
    saved = checkpoint.load(os.fspath(ckpt))
    config = compose_evaluation(saved.config, quote_paths(overrides))
    return build.trained(saved, config, build.dataset(config))


def sample(
    p: ReverseProcess, shape: Sequence[int], sampler: Sampler | None = None, seed: int = 0
) -> UInt8[Tensor, "n c h w"]:
    """Draw images from p.

    Args:
        shape: the shape [n, channels, height, width] of the result; all but n must be those of the training data.
        sampler: by default `Ancestral()`, which takes all T steps; `DDIM(steps=50)` takes 50.
        seed: seed of all the noise; the same seed gives other noise on another device.
    """
    device = next(p.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    x_T = torch.randn(*shape, generator=generator, device=device)
    *_, last = (sampler or Ancestral())(p, x_T, generator)
    return to_uint8(last.x_t)


def bits_per_dim(p: ReverseProcess, images: UInt8[Tensor, "b c h w"], seed: int = 0) -> Float[Tensor, " b"]:
    """The variational bound of each image in bits per dimension, from T evaluations of the network on all of them."""
    device = next(p.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    bound = evaluate_bound(p, to_unit(images.to(device)), generator)
    return bound.bits_per_dim(math.prod(images.shape[1:]))
