"""Milliseconds per image of one term of the bound, beside diffusers' U-Net in the plainest loop; CIFAR-10's network.

    python benchmarks/bound.py [--batch 8 32] [--rounds 8] [--toy]

Both draw x_t, evaluate the network, and compute the KL of Eq. (5). The weights are random: the time does not depend on
them.
"""

from collections.abc import Callable
from functools import partial

import peers
import record
import torch

from ddpm import hardware
from ddpm.diffusion.likelihood import term

STEP = 500


def ours(size: peers.Size, bf16: bool, batch: int) -> Callable[[], torch.Tensor]:
    hardware.keep_freed_memory()
    p = peers.reverse_process(peers.our_network(size)).eval()
    hardware.prepare_for_evaluation(p.network, bf16)
    x_0, draw = pictures(size, batch), torch.Generator().manual_seed(0)

    def one() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return term(p, x_0, torch.full((batch,), STEP), draw).nats

    return one


def plainest(size: peers.Size, bf16: bool, batch: int) -> Callable[[], torch.Tensor]:
    model, x_0, t = peers.diffusers_network(size).eval(), pictures(size, batch), STEP
    beta = torch.linspace(1e-4, 0.02, peers.T)
    alpha_bar = (1 - beta).cumprod(0)

    @torch.no_grad()
    def one() -> torch.Tensor:
        a, a_prev, b = alpha_bar[t - 1], alpha_bar[t - 2], beta[t - 1]
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * torch.randn_like(x_0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            eps = model(x_t, t - 1).sample.float()
        guess = ((x_t - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
        weight = a_prev.sqrt() * b / (1 - a)
        variance = b * (1 - a_prev) / (1 - a)
        kl = 0.5 * (b.log() - variance.log() - 1 + variance / b + (weight * (x_0 - guess)) ** 2 / b)
        return kl.flatten(1).sum(1)

    return one


def pictures(size: peers.Size, batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, size.side, size.side) * 2 - 1


def main() -> None:
    args = record.parser(__doc__, rounds=8, batch=(8, 32)).parse_args()
    size = peers.TOY if args.toy else peers.CIFAR10
    record.write("bound", {f"batch {batch}": measure(size, batch, args.rounds) for batch in args.batch}, args.records)


def measure(size: peers.Size, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    made = {
        f"{name} {precision}": partial(make, size, bool(bf16), batch)
        for bf16, precision in enumerate(peers.PRECISIONS)
        for name, make in (("ddpm", ours), ("diffusers", plainest))
    }
    turns = record.apart(made, rounds)
    return {
        "milliseconds per image and term": {name: 1e3 * s / batch for name, s in record.medians(turns).items()},
        "ratios": peers.ratios(turns),
    }


if __name__ == "__main__":
    main()
