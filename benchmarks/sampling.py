"""Milliseconds per image of one step of ancestral sampling, beside peers; CIFAR-10's network.

    python benchmarks/sampling.py [--batch 8 32] [--rounds 8] [--toy]

Ours is laid out as evaluation lays it out.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import peers
import record
import torch

from ddpm.hardware import prepare_for_evaluation


def step(make: Callable[[], peers.Peer], batch: int, side: int) -> Callable[[], object]:
    peer, x_t = make(), torch.randn(batch, 3, side, side)
    if isinstance(peer, peers.Ours):
        prepare_for_evaluation(peer.network, peer.autocast._enabled)
    return lambda: peer.reverse_step(x_t, 500)


def main() -> None:
    args = record.parser(__doc__, rounds=8, batch=(8, 32)).parse_args()
    size, device = peers.TOY if args.toy else peers.CIFAR10, torch.device("cpu")
    ceilings = record.ceilings(device, args.toy)
    contenders = peers.contenders(size, device)
    gflop = peers.gflop(peers.diffusers_network(size), size)
    work = {name: gflop for name in contenders if name.startswith(("ddpm", "diffusers"))}
    numbers: dict[str, Any] = {"ceilings in GFLOP/s and GB/s": ceilings}
    for batch in args.batch:
        made = {name: partial(step, make, batch, size.side) for name, make in contenders.items()}
        turns = record.apart(made, args.rounds)
        numbers[f"batch {batch}"] = peers.steps(turns, batch, work, ceilings)
    record.write("sampling", numbers, args.records)


if __name__ == "__main__":
    main()
