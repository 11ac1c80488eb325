"""How the time of an image changes with the batch, the resolution, and a second process.

    python benchmarks/scaling.py [--rounds 3] [--toy]

Batches and resolutions: a training step of CIFAR-10's network in float32 and bf16, over the same work per image
(resolutions: per pixel). Processes: `train.py` on the digits with a wider network, one process with two threads against
two (gloo) with one thread each; images/s as metrics.csv has them.
"""

import dataclasses
import statistics

import peers
import record
import torch


def milliseconds(size: peers.Size, batches: list[int], rounds: int) -> dict[str, float]:
    """Of one image in a training step."""
    found: dict[str, float] = {}
    for precision in peers.PRECISIONS:
        peer = peers.Ours(size, torch.device("cpu"), precision == "bf16")
        for batch in batches:
            x_0 = torch.zeros(batch, 3, size.side, size.side)
            found[f"batch {batch} {precision}"] = (
                1e3 * record.once(lambda p=peer, x=x_0: p.train_step(x), rounds) / batch
            )
    return found


def images_per_second(processes: int, toy: bool) -> float:
    """Of a whole run."""
    network = ["network.channels=32"] if toy else ["network.channels=128", "network.num_res_blocks=2"]
    length = ["max_steps=12" if toy else "max_steps=30", "every.log=3"]
    ddp = ["trainer=ddp", f"trainer.devices={processes}"] if processes > 1 else []
    settings = [*ddp, "trainer.accelerator=cpu", *network, *length]
    return record.images_per_second(settings, {"OMP_NUM_THREADS": str(2 // processes)})["images/s"]


def main() -> None:
    parser = record.parser(__doc__, rounds=3)
    args = parser.parse_args()
    size = peers.TOY if args.toy else peers.CIFAR10
    batches, sides = ([1, 2], [8, 16]) if args.toy else ([1, 4, 16], [16, 32, 64])
    by_side = {}
    for side in sides:
        for key, ms in milliseconds(dataclasses.replace(size, side=side), [4], args.rounds).items():
            by_side[f"{side}x{side} {key}"] = 1e3 * ms / side**2
    pairs = [[images_per_second(processes, args.toy) for processes in (1, 2)] for _ in range(1 if args.toy else 2)]
    one, two = (statistics.median(speeds) for speeds in zip(*pairs, strict=True))
    numbers = {
        "milliseconds per image and step, by batch": milliseconds(size, batches, args.rounds),
        "microseconds per pixel and step, by resolution": by_side,
        "images/s": {"one process, two threads": one, "two processes, one thread each": two},
        "two processes / one": two / one,
    }
    record.write("scaling", numbers, args.records)


if __name__ == "__main__":
    main()
