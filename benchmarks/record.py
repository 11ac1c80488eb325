"""What all benchmarks share: turns, the machine's ceilings, and records of what was measured where."""

import argparse
import csv
import json
import multiprocessing
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

HIDDEN = argparse.SUPPRESS
ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
COMMAND = shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])  # a benchmark may change sys.argv
PACKAGES = ("torch", "lightning", "diffusers", "denoising-diffusion-pytorch")


def parser(doc: str | None, rounds: int | None = None, batch: Sequence[int] = ()) -> argparse.ArgumentParser:
    """With the arguments that every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--toy", action="store_true", help="a tiny network: whether it runs, not how fast")
    if rounds:
        made.add_argument("--rounds", type=int, default=rounds, help="turns of each contender that count")
    if batch:
        made.add_argument("--batch", type=int, nargs="+", default=batch, help="images of a step; each is measured")
    made.add_argument("--records", type=Path, default=RECORDS, help="the folder for the record")
    return made


def turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, finish: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median seconds of each; they take turns, so that a busy machine is busy for all. The first two turns warm up.

    `finish` waits for the device.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, run in contenders.items():
            begun = time.perf_counter()
            run()
            finish()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - begun)
    return medians(seconds)


def apart(contenders: Mapping[str, Callable[[], Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every turn; each makes what it runs in a process of its own, as its users do.

    Nobody's settings are another's. They take turns as above; in each one runs twice and the second time counts, since
    the first finds the caches full of the others' numbers.
    """
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    processes = []
    for name, make in contenders.items():
        ends[name], other = context.Pipe()
        processes.append(context.Process(target=_serve, args=(make, other), daemon=True))
        processes[-1].start()
        other.close()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, end in ends.items():
            end.send("run")
            took = end.recv()
            if turn >= 2:
                seconds[name].append(took)
    for end, process in zip(ends.values(), processes, strict=True):
        end.send("")
        process.join()
    return seconds


def medians(turns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in turns.items()}


def _serve(make: Callable[[], Callable[[], object]], connection: Connection) -> None:
    run = make()
    while connection.recv():
        run()
        begun = time.perf_counter()
        run()
        connection.send(time.perf_counter() - begun)


def once(run: Callable[[], object], rounds: int, finish: Callable[[], object] = lambda: None) -> float:
    """Median seconds of one contender."""
    return turns({"": run}, rounds, finish)[""]


def ceilings(device: torch.device, toy: bool = False, finish: Callable[[], object] = lambda: None) -> dict[str, float]:
    """What matrix units (GFLOP/s) and memory (GB/s) give at best, in the calls that networks make."""
    side, batch = (64, 1) if toy else (2048, 8) if device.type == "cpu" else (8192, 128)
    found: dict[str, float] = {}

    def best(name: str, amount: float, run: Callable[[], object]) -> None:
        fastest = float("inf")
        for _ in range(3 if toy else 12):
            begun = time.perf_counter()
            run()
            finish()
            fastest = min(fastest, time.perf_counter() - begun)
        found[name] = max(found.get(name, 0.0), amount / fastest / 1e9)

    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            kind = str(dtype).removeprefix("torch.")
            a = torch.randn(side, side, device=device, dtype=dtype)
            best(f"matmul {kind}", 2 * side**3, lambda a=a: a @ a)
            for channels, size in ((32, 8),) if toy else ((128, 32), (256, 16), (256, 8)):
                for layout in (torch.contiguous_format, torch.channels_last):
                    x = torch.randn(batch, channels, size, size, device=device, dtype=dtype).to(memory_format=layout)
                    w = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=layout)
                    work = 2 * batch * channels**2 * 9 * size**2
                    best(f"conv {kind}", work, lambda x=x, w=w: torch.conv2d(x, w, padding=1))
        source = torch.empty(2**20 if toy else 2**26, device=device)
        target = torch.empty_like(source)
        best("memory", 2 * source.nbytes, lambda: target.copy_(source))
    return found


def finish_on(device: torch.device) -> Callable[[], object]:
    """What waits until the device has done what it was told."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def images_per_second(settings: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Of a run of train.py, and its share of waiting for data: medians of what it logged, the first numbers aside."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["logger=csv", "out=run", *(f"every.{what}=1000000" for what in ("validation", "samples", "checkpoint"))]
        command = [sys.executable, str(ROOT / "train.py"), *own, *settings]
        subprocess.run(
            command, check=True, cwd=folder, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL
        )
        with Path(folder, "run", "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))

    def median(key: str) -> float:
        return statistics.median([float(row[key]) for row in rows if row.get(key)][1:])

    return {"images/s": median("train/images_per_second"), "share of waiting for data": median("train/data_wait")}


def write(name: str, numbers: Mapping[str, Any], folder: Path = RECORDS) -> None:
    """Print what was measured, and keep it with all that it depends on."""
    text = json.dumps(rounded({**about(), **numbers}), indent=2)
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{time.strftime('%Y-%m-%d')}_{name}.json").write_text(text + "\n")


def about() -> dict[str, Any]:
    """The command, the versions and the machine."""
    installed = {package: version for package in PACKAGES if (version := _version(package))}
    capable = torch.cpu.get_capabilities()
    return {
        "command": COMMAND,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "versions": {"python": sys.version.split()[0], **installed},
        "hardware": {
            "cpu": capable.get("cpu_name"),
            "bfloat16 in hardware": bool(capable.get("avx512_bf16") or capable.get("amx_bf16")),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "load average": os.getloadavg()[0],
    }


def rounded(tree: Any) -> Any:
    """To four significant digits: timings have no more."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return float(f"{tree:.4g}") if isinstance(tree, float) else tree


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
