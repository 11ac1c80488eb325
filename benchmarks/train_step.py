"""Milliseconds per image of a whole training step, beside peers, and the share of the ceiling that it reaches.

    python benchmarks/train_step.py [--batch 8] [--rounds 8] [--toy]

The network is CIFAR-10's (35.7 M parameters). A step is 3 times its forward pass: the share counts the 12.44 GFLOP of
the network as the paper has it, whatever a faster way to the same numbers saves of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import peers
import record
import torch


def step(make: Callable[[], peers.Peer], batch: int, side: int) -> Callable[[], object]:
    peer, x_0 = make(), torch.rand(batch, 3, side, side) * 2 - 1
    return lambda: peer.train_step(x_0)


def main() -> None:
    args = record.parser(__doc__, rounds=8, batch=(8,)).parse_args()
    size, device = peers.TOY if args.toy else peers.CIFAR10, torch.device("cpu")
    ceilings = record.ceilings(device, args.toy)
    contenders = peers.contenders(size, device)
    work, parameters = {}, {}
    for name, make in contenders.items():
        network = make().network
        work[name] = peers.gflop(peers.diffusers_network(size) if name.startswith("ddpm") else network, size)
        parameters[name] = sum(w.numel() for w in network.parameters())
    numbers: dict[str, Any] = {
        "ceilings in GFLOP/s and GB/s": ceilings,
        "gigaflop per image, forward": work,
        "parameters": parameters,
    }
    for batch in args.batch:
        made = {name: partial(step, make, batch, size.side) for name, make in contenders.items()}
        turns = record.apart(made, args.rounds)
        numbers[f"batch {batch}"] = peers.steps(turns, batch, {name: 3 * each for name, each in work.items()}, ceilings)
    record.write("train_step", numbers, args.records)


if __name__ == "__main__":
    main()
