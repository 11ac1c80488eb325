"""Memory of a training step beside peers: what an image more in the batch adds to the peak; CIFAR-10's network.

    python benchmarks/memory.py [--batches 16 32] [--toy]

Each measurement is a process of its own: its peak resident set after two steps. Batches are large enough for the peak
to be where all activations are held, not in the optimizer.
"""

import json
import resource
import subprocess
import sys
from typing import Any

import peers
import record
import torch

KINDS = (peers.InPatches, peers.Checkpointed, peers.Ours, *peers.available())


def peak_mib(name: str, batch: int, size: peers.Size) -> float:
    """After two training steps in this process."""
    kind: type[Any] = next(kind for kind in KINDS if kind.name == name.rpartition(" ")[0])
    peer = kind(size, torch.device("cpu"), name.endswith("bf16"))
    x_0 = torch.zeros(batch, 3, size.side, size.side)
    for _ in range(2):
        peer.train_step(x_0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("--batches", type=int, nargs=2, default=(16, 32))
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "BATCH"), help=record.HIDDEN)
    args = parser.parse_args()
    size = peers.TOY if args.toy else peers.CIFAR10
    if args.measure:
        print(peak_mib(args.measure[0], int(args.measure[1]), size))
        return
    few, many = args.batches
    per_image: dict[str, float] = {}
    for name in (f"{kind.name} {precision}" for kind in KINDS for precision in peers.PRECISIONS):
        command = [sys.executable, __file__, *(["--toy"] if args.toy else []), "--measure", name]
        low, high = (
            json.loads(subprocess.run([*command, str(n)], check=True, stdout=subprocess.PIPE, text=True).stdout)
            for n in (few, many)
        )
        per_image[name] = (high - low) / (many - few)
    numbers = {
        "batches": [few, many],
        "MiB per image": per_image,
        "ratios": peers.ratios({name: [mib] for name, mib in per_image.items()}),
    }
    record.write("memory", numbers, args.records)


if __name__ == "__main__":
    main()
