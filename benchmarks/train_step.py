"""Milliseconds per image of a whole training step, beside peers, and the share of the ceiling that it reaches.

    python benchmarks/train_step.py [--batch 8] [--rounds 5] [--toy]

The network is CIFAR-10's (35.7 M parameters). A step is 3 times its forward pass: the share counts the 12.44 GFLOP of
the network as the paper has it, whatever a faster way to the same numbers saves of them.
"""

import peers
import record
import torch


def main() -> None:
    parser = record.parser(__doc__, rounds=5)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    size, device = peers.TOY if args.toy else peers.CIFAR10, torch.device("cpu")
    ceilings = record.ceilings(device, args.toy)
    x_0 = torch.rand(args.batch, 3, size.side, size.side) * 2 - 1
    made = peers.contenders(size, device)
    seconds = record.turns({name: lambda p=peer: p.train_step(x_0) for name, peer in made.items()}, args.rounds)
    nominal = peers.gflop(peers.diffusers_network(size), size)
    work = {
        name: nominal if name.startswith(("ddpm", "diffusers")) else peers.gflop(made[name].network, size)
        for name in made
    }
    numbers = {
        "batch": args.batch,
        "ceilings in GFLOP/s and GB/s": ceilings,
        "gigaflop per image, forward": work,
        "parameters": {name: sum(w.numel() for w in peer.network.parameters()) for name, peer in made.items()},
        "milliseconds per image and step": {name: 1e3 * s / args.batch for name, s in seconds.items()},
        "share of the convolution ceiling": {
            name: 3 * work[name] * args.batch / s / ceilings[f"conv {'bfloat16' if 'bf16' in name else 'float32'}"]
            for name, s in seconds.items()
        },
        "ratios": peers.ratios(seconds),
    }
    record.write("train_step", numbers, args.records)


if __name__ == "__main__":
    main()
