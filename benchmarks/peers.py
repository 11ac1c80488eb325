"""Our network and those of others, each trained and sampled as its users do it.

diffusers is among this project's tools for development. denoising-diffusion-pytorch is for benchmarks alone, and is
left out where it cannot be imported; in a folder of its own it disturbs nothing:

    pip install --no-deps --target PEERS denoising-diffusion-pytorch einops ema-pytorch accelerate pytorch-fid
    PYTHONPATH=PEERS python benchmarks/train_step.py
"""

import importlib.util
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import record
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from ddpm import hardware
from ddpm.diffusion.gaussian import noise_like
from ddpm.diffusion.objective import Simple
from ddpm.diffusion.prediction import Epsilon
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge
from ddpm.networks.unet import UNet

T = 1000


@dataclass(frozen=True)
class Size:
    """A network and the images that it takes."""

    side: int
    channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    dropout: float = 0.1
    colours: int = 3
    patch_size: int = 1


CIFAR10 = Size(32, 128, (1, 2, 2, 2), 2, (16,))
HQ = Size(256, 128, (1, 1, 2, 2, 4, 4), 2, (16,), dropout=0.0)
DIGITS = Size(8, 32, (1, 1), 1, (4,), dropout=0.0, colours=1)
TOY = Size(8, 32, (1, 2), 1, (4,))
PRECISIONS = ("float32", "bf16")


class Peer:
    """A network with its optimizer and its average; `bf16` computes it under autocast."""

    name: str
    network: torch.nn.Module

    def __init__(self, device: torch.device, bf16: bool) -> None:
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def train_step(self, x_0: Tensor) -> None:
        """All of an optimizer step, for images in [-1, 1]."""
        raise NotImplementedError

    def reverse_step(self, x_t: Tensor, t: int) -> Tensor:
        """One step of sampling, from t in 1..T."""
        raise NotImplementedError


class Ours(Peer):
    name = "ddpm"

    def __init__(
        self, size: Size, device: torch.device, bf16: bool, channels_last: bool = False, compiled: str | None = None
    ) -> None:
        super().__init__(device, bf16)
        self.network = our_network(size).to(device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.p = reverse_process(self.network).to(device)
        self.objective, self.draw = Simple(), torch.Generator(device).manual_seed(0)
        self.weights = list(self.network.parameters())
        self.averages = [weights.detach().clone() for weights in self.weights]
        self.average = get_ema_multi_avg_fn(0.9999)
        self.optimizer = torch.optim.Adam(self.weights, 2e-4, fused=True)
        hardware.keep_freed_memory()
        hardware.narrow_attention()  # diffusers' layout never meets the kernel that it is about
        if compiled:
            self.network.compile(mode=compiled, dynamic=False)

    def train_step(self, x_0: Tensor) -> None:
        self.network.train()
        t = torch.randint(1, T + 1, (len(x_0),), generator=self.draw, device=x_0.device)
        noise = torch.randn(x_0.shape, generator=self.draw, device=x_0.device)
        with self.autocast:
            loss = self.objective(self.p, x_0, t, noise).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average(self.averages, self.weights, None)

    @torch.no_grad()
    def reverse_step(self, x_t: Tensor, t: int) -> Tensor:
        self.network.eval()
        with self.autocast:
            step = self.p(x_t, torch.full((len(x_t),), t, device=x_t.device), clip=True).step
        return step.sample(noise_like(x_t, self.draw))


class Checkpointed(Ours):
    """This is `Ours` with network.checkpointing=true: a block is computed again for its gradient."""

    name = "ddpm checkpointed"

    def __init__(self, size: Size, device: torch.device, bf16: bool) -> None:
        super().__init__(device=device, size=size, bf16=bf16)
        for level in (*self.network.down, *self.network.up):
            level.checkpointing = True


class InPatches(Ours):
    """This is `Ours` with network.patch_size=2: squares of 2x2 pixels are one position of the network."""

    name = "ddpm in patches"

    def __init__(self, size: Size, device: torch.device, bf16: bool) -> None:
        super().__init__(device=device, size=replace(size, patch_size=2), bf16=bf16)


class Diffusers(Peer):
    """The loop of diffusers' train_unconditional.py with its --use_ema, and that of its DDPMPipeline."""

    name = "diffusers"

    def __init__(self, size: Size, device: torch.device, bf16: bool) -> None:
        super().__init__(device, bf16)
        self.network = diffusers_network(size).to(device)
        self.scheduler = DDPMScheduler(num_train_timesteps=T)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4, (0.95, 0.999), weight_decay=1e-6)
        self.ema = EMAModel(self.network.parameters(), decay=0.9999, use_ema_warmup=True)

    def train_step(self, x_0: Tensor) -> None:
        self.network.train()
        noise = torch.randn_like(x_0)
        t = torch.randint(0, T, (len(x_0),), device=x_0.device)
        with self.autocast:
            output = self.network(self.scheduler.add_noise(x_0, noise, t), t).sample
            loss = F.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())

    @torch.no_grad()
    def reverse_step(self, x_t: Tensor, t: int) -> Tensor:
        self.network.eval()
        with self.autocast:
            output = self.network(x_t, t - 1).sample
        return self.scheduler.step(output.float(), t - 1, x_t).prev_sample


class Lucidrains(Peer):
    """The loop of denoising-diffusion-pytorch's Trainer; its network is another one, with fewer parameters."""

    name = "denoising-diffusion-pytorch"

    def __init__(self, size: Size, device: torch.device, bf16: bool) -> None:
        super().__init__(device, bf16)
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        self.network = Unet(dim=size.channels, dim_mults=size.channel_mult, dropout=size.dropout)
        self.diffusion = GaussianDiffusion(self.network, image_size=size.side, timesteps=T).to(device)
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), 1e-4, (0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10).to(device)

    def train_step(self, x_0: Tensor) -> None:
        self.network.train()
        with self.autocast:
            loss = self.diffusion((x_0 + 1) / 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    @torch.no_grad()
    def reverse_step(self, x_t: Tensor, t: int) -> Tensor:
        self.network.eval()
        with self.autocast:
            sample: Tensor = self.diffusion.p_sample(x_t, t - 1)[0]
        return sample


def available() -> list[type[Any]]:
    """Peers that are installed; a line says which is not."""
    if importlib.util.find_spec("denoising_diffusion_pytorch"):
        return [Diffusers, Lucidrains]
    print(
        "denoising-diffusion-pytorch is left out: it is not installed (benchmarks/peers.py says how)", file=sys.stderr
    )
    return [Diffusers]


def contenders(size: Size, device: torch.device) -> dict[str, Callable[[], Peer]]:
    """What makes everyone in float32 and in bfloat16, by "NAME PRECISION"."""
    kinds, precisions = (Ours, *available()), enumerate(PRECISIONS)
    return {
        f"{kind.name} {precision}": partial(kind, size, device, bool(bf16))
        for bf16, precision in precisions
        for kind in kinds
    }


def ratios(turns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Ours to the fastest peer with the same network, in both precisions; and to the other network's.

    Medians of the ratios of each turn: what slows the machine down for a while slows both.
    """
    pairs = {
        "float32 / fastest float32 peer": ("ddpm float32", "diffusers float32"),
        "bf16 / fastest float32 peer": ("ddpm bf16", "diffusers float32"),
        "bf16 / fastest bf16 peer": ("ddpm bf16", "diffusers bf16"),
    }
    for precision in PRECISIONS:
        if (smaller := f"{Lucidrains.name} {precision}") in turns:
            pairs[f"{precision} / {Lucidrains.name}'s smaller network"] = (f"ddpm {precision}", smaller)
    return {
        what: statistics.median(own / other for own, other in zip(turns[ours], turns[peer], strict=True))
        for what, (ours, peer) in pairs.items()
    }


def steps(
    turns: Mapping[str, Sequence[float]], batch: int, work: Mapping[str, float], ceilings: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """What the turns of everyone's step come to; `work` is gigaflop for an image, where they are known."""
    seconds = record.medians(turns)
    return {
        "milliseconds per image and step": {name: 1e3 * s / batch for name, s in seconds.items()},
        "share of the convolution ceiling": {
            name: each * batch / seconds[name] / ceilings[f"conv {'bfloat16' if 'bf16' in name else 'float32'}"]
            for name, each in work.items()
        },
        "ratios": ratios(turns),
    }


def gflop(network: torch.nn.Module, size: Size) -> float:
    """Of the network's layers for one image, forward."""
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(
            torch.zeros(1, size.colours, size.side, size.side, device=device),
            torch.zeros(1, device=device, dtype=torch.long),
        )
    return counter.get_total_flops() / 1e9


def our_network(size: Size) -> UNet:
    return UNet(
        size.colours,
        size.colours,
        size.channels,
        size.channel_mult,
        size.num_res_blocks,
        size.attention_resolutions,
        size.dropout,
        (size.side, size.side),
        groups=min(32, size.channels // 4),
        patch_size=size.patch_size,
    )


def reverse_process(network: torch.nn.Module) -> ReverseProcess:
    return ReverseProcess(network, ForwardProcess(linear(T)), Epsilon(), FixedLarge())


def diffusers_network(size: Size) -> UNet2DModel:
    """The same network, layer for layer."""
    attend = [size.side >> level in size.attention_resolutions for level in range(len(size.channel_mult))]
    return UNet2DModel(
        sample_size=size.side,
        in_channels=size.colours,
        out_channels=size.colours,
        block_out_channels=tuple(size.channels * mult for mult in size.channel_mult),
        layers_per_block=size.num_res_blocks,
        down_block_types=tuple("AttnDownBlock2D" if yes else "DownBlock2D" for yes in attend),
        up_block_types=tuple("AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attend)),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_eps=1e-6,
        norm_num_groups=min(32, size.channels // 4),
        dropout=size.dropout,
    )
