"""Time of one term of the bound per image, beside diffusers' U-Net driven by the plainest loop; CIFAR-10's network.

    python benchmarks/bound.py [--batch 8] [--terms 12]

Both draw x_t, evaluate the 35.7 M network, and compute the KL of Eq. (5). Turns alternate, medians are compared. The
weights are random: the time does not depend on them.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DModel

from ddpm.diffusion.likelihood import term
from ddpm.diffusion.prediction import Epsilon
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge
from ddpm.unet import UNet


def ours() -> Callable[[torch.Tensor, int], torch.Tensor]:
    p = ReverseProcess(UNet(3, 3, dropout=0.0), ForwardProcess(linear(1000)), Epsilon(), FixedLarge()).eval()
    draw = torch.Generator().manual_seed(0)
    return lambda x_0, t: term(p, x_0, torch.full((len(x_0),), t), draw).nats


def plainest() -> Callable[[torch.Tensor, int], torch.Tensor]:
    model = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        norm_eps=1e-6,
    ).eval()
    beta = torch.linspace(1e-4, 0.02, 1000)
    alpha_bar = (1 - beta).cumprod(0)

    @torch.no_grad()
    def one(x_0: torch.Tensor, t: int) -> torch.Tensor:
        a, a_prev, b = alpha_bar[t - 1], alpha_bar[t - 2], beta[t - 1]
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(x_0)
        eps = model(x_t, t - 1).sample
        guess = ((x_t - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        weight = a_prev.sqrt() * b / (1 - a)
        variance = b * (1 - a_prev) / (1 - a)
        kl = 0.5 * (b.log() - variance.log() - 1 + variance / b + (weight * (x_0 - guess)) ** 2 / b)
        return kl.flatten(1).sum(1)

    return one


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--terms", type=int, default=12)
    arguments = parser.parse_args()
    x_0 = torch.rand(arguments.batch, 3, 32, 32) * 2 - 1
    contenders = {"ddpm": ours(), "diffusers, plainest loop": plainest()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(arguments.terms + 2):
        for name, one in contenders.items():
            begun = time.perf_counter()
            one(x_0, 1000 - 61 * k % 900)
            if k >= 2:  # the first ones warm up
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    record = {
        "milliseconds_per_image_and_term": {name: 1e3 * t / arguments.batch for name, t in medians.items()},
        "ratio": medians["ddpm"] / medians["diffusers, plainest loop"],
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
