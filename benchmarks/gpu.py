"""Every number that a GPU gives, in one command; most of its time is compiling.

    python benchmarks/gpu.py [--rounds 10] [--dry-run]

CIFAR-10's network: training steps/s at batch 128, plain and with each switch, and their share of the matmul rate;
images/s of sampling in 1000 steps and of the bound, carried forward to 50,000 samples and 10,000 images; how long a
batch of data takes; what makes the host wait. Then the 256x256 network at batch 64, and train.py as a whole. diffusers'
stands beside. The record is written anew after every part. --dry-run does the same at toy size on a CPU, where nothing
is compiled.
"""

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import record
import torch
from PIL import Image

from ddpm.data.dataset import InMemory, Resident
from ddpm.diffusion.likelihood import term
from ddpm.hardware import prepare_for_evaluation

MODES = ("default", "reduce-overhead")  # of torch.compile; the latter launches CUDA graphs


def train_variants(size: peers.Size, device: torch.device, compiled: bool) -> dict[str, Callable[[], peers.Peer]]:
    def ours(**how: Any) -> Callable[[], peers.Peer]:
        return lambda: peers.Ours(size, device, **how)

    made: dict[str, Callable[[], peers.Peer]] = {
        "ddpm float32": ours(bf16=False),
        "ddpm bf16": ours(bf16=True),
        "ddpm bf16, channels last": ours(bf16=True, channels_last=True),
    }
    if compiled:
        for mode in MODES:
            made[f"ddpm bf16, channels last, compiled: {mode}"] = ours(bf16=True, channels_last=True, compiled=mode)
    for precision in peers.PRECISIONS:
        made[f"diffusers {precision}"] = lambda bf16=precision == "bf16": peers.Diffusers(size, device, bf16)
    return made


def sample_variants(size: peers.Size, device: torch.device, compiled: bool) -> dict[str, Callable[[], peers.Peer]]:
    def ours(bf16: bool, mode: str | None = None) -> peers.Peer:
        peer = peers.Ours(size, device, bf16, compiled=mode)
        prepare_for_evaluation(peer.network, bf16)
        return peer

    modes = MODES if compiled else ()
    made: dict[str, Callable[[], peers.Peer]] = {"ddpm float32": lambda: ours(False), "ddpm bf16": lambda: ours(True)}
    made |= {f"ddpm bf16, compiled: {mode}": partial(ours, True, mode) for mode in modes}
    made |= {name: make for name, make in train_variants(size, device, False).items() if name.startswith("diffusers")}
    return made


def seconds(
    variants: dict[str, Callable[[], peers.Peer]],
    run: Callable[[peers.Peer], object],
    rounds: int,
    device: torch.device,
) -> dict[str, float | str]:
    """Median of each, one after the other, so that only one network at a time fills the memory."""
    found: dict[str, float | str] = {}
    for name, make in variants.items():
        peer = None  # lets go of the one before
        try:
            peer = make()
            found[name] = record.once(lambda p=peer: run(p), rounds, record.finish_on(device))
        except torch.OutOfMemoryError:
            found[name] = "out of memory"
    return found


def each(found: dict[str, float | str], formula: Callable[[float], float]) -> dict[str, float | str]:
    return {name: value if isinstance(value, str) else formula(value) for name, value in found.items()}


def host_waits(peer: peers.Peer, x_0: torch.Tensor) -> int:
    """How often the host waits for the GPU in one training step."""
    peer.train_step(x_0)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peer.train_step(x_0)
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def milliseconds_per_batch(device: torch.device, n: int, side: int, batch: int, rounds: int) -> dict[str, float]:
    """From the array of all images to a batch on the device."""
    images = InMemory(torch.zeros(n, 3, side, side, dtype=torch.uint8))
    resident, chosen = Resident(images, device), torch.randperm(n)[:batch].tolist()
    ways = {
        "resident": lambda: resident.__getitems__(chosen),
        "from host memory": lambda: images.__getitems__(chosen).to(device),
    }
    return {name: 1e3 * s for name, s in record.turns(ways, rounds, record.finish_on(device)).items()}


def whole_runs(size: peers.Size, batch: int, toy: bool) -> dict[str, dict[str, float]]:
    """What train.py itself gets to on a folder of pictures, whatever Lightning, data and logging take."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for k in range(10 * batch):
            picture = draw.integers(0, 256, (size.side, size.side, 3), np.uint8)
            Image.fromarray(picture).save(Path(folder, f"{k}.png"))
        settings = ["recipe=cifar10", "data=folder", f"data.path={folder}", f"data.size=[{size.side},{size.side}]"]
        settings += [f"loader.batch_size={batch}", f"trainer.accelerator={'cpu' if toy else 'auto'}"]
        settings += ["max_steps=9", "every.log=3", "network.channels=32"] if toy else ["max_steps=400", "every.log=50"]
        return {
            f"trainer.compile={how}": record.images_per_second([*settings, f"trainer.compile={how}"])
            for how in (["null"] if toy else ["null", *MODES])
        }


def main() -> None:
    parser = record.parser(__doc__, rounds=10)
    parser.add_argument("--dry-run", action="store_true", help="at toy size on a CPU")
    args = parser.parse_args()
    if not (args.dry_run or torch.cuda.is_available()):
        parser.error("there is no GPU here: --dry-run runs everything at toy size on the CPU")
    toy, rounds = args.dry_run, 1 if args.dry_run else args.rounds
    device = torch.device("cpu" if toy else "cuda")
    size, hq = (peers.TOY, peers.TOY) if toy else (peers.CIFAR10, peers.HQ)
    batch, chunk, hq_batch, n = (2, 2, 2, 10) if toy else (128, 500, 64, 50_000)

    def pictures(count: int, of: peers.Size) -> torch.Tensor:
        return torch.rand(count, 3, of.side, of.side, device=device) * 2 - 1

    def bound_term(peer: peers.Peer) -> torch.Tensor:
        assert isinstance(peer, peers.Ours)
        with peer.autocast:
            return term(peer.p, pictures(chunk, size), torch.full((chunk,), 500, device=device), peer.draw).nats

    numbers: dict[str, Any] = {}

    def keep(what: str, found: Any) -> None:
        """Each part as soon as it is there: what is cut short leaves what it has."""
        numbers[what] = found
        record.write("gpu_dry_run" if toy else "gpu", numbers, args.records)

    ceilings = record.ceilings(device, toy, record.finish_on(device))
    keep("ceilings in GFLOP/s and GB/s", ceilings)
    gflop = peers.gflop(peers.diffusers_network(size), size)
    x_0, large = pictures(batch, size), pictures(hq_batch, hq)
    training = seconds(train_variants(size, device, not toy), lambda p: p.train_step(x_0), rounds, device)
    shares = {
        name: s
        if isinstance(s, str)
        else 3 * gflop * batch / s / ceilings["matmul bfloat16" if "bf16" in name else "matmul float32"]
        for name, s in training.items()
    }
    steps = each(training, lambda s: 1 / s)
    keep(f"training, batch {batch}", {"steps/s": steps, "share of the matmul rate": shares})
    keep("waits of the host in a training step", None if toy else host_waits(peers.Ours(size, device, True), x_0))
    x_T = torch.randn(chunk, 3, size.side, size.side, device=device)
    sampling = seconds(sample_variants(size, device, not toy), lambda p: p.reverse_step(x_T, 500), rounds, device)
    by_name = {
        "images/s in 1000 steps": each(sampling, lambda s: chunk / s / peers.T),
        "hours for 50,000 images": each(sampling, lambda s: 50_000 * peers.T * s / chunk / 3600),
    }
    keep(f"sampling, batch {chunk}", by_name)
    own = {name: make for name, make in sample_variants(size, device, not toy).items() if name.startswith("ddpm")}
    bound = seconds(own, bound_term, rounds, device)
    hours = each(bound, lambda s: 10_000 * peers.T * s / chunk / 3600)
    keep(f"bound, batch {chunk}: hours for 10,000 images", hours)
    keep("milliseconds per batch of data", milliseconds_per_batch(device, n, size.side, batch, rounds))
    bf16 = {name: make for name, make in train_variants(hq, device, False).items() if "bf16" in name}
    training_hq = seconds(bf16, lambda p: p.train_step(large), max(1, rounds // 3), device)
    keep(f"training at {hq.side}x{hq.side}, batch {hq_batch}: steps/s", each(training_hq, lambda s: 1 / s))
    if not toy:
        torch.cuda.empty_cache()  # which this process would keep from train.py's
    keep(f"train.py, batch {batch}", whole_runs(size, batch, toy))


if __name__ == "__main__":
    main()
