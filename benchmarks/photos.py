"""Bits/dim of recipe=photos on held-out pixels, beside picture codecs and beside other settings of the diffusion.

    python benchmarks/photos.py [--keep FOLDER] [--toy]

All settings are trained and evaluated side by side, on a GPU if there is one. Before that, the recipe's training is
timed on two threads of the CPU. FOLDER keeps the runs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import record
import torch

from ddpm.data.photos import BAND, HEIGHT, TOP, photographs
from ddpm.metrics import codecs

VARIANTS = {
    "recipe=photos": [],
    "the hybrid objective": ["objective=hybrid", "timesteps=uniform"],
    "the paper's schedule": ["schedule=linear", "schedule.T=1000", "schedule.beta_1=1e-4", "schedule.beta_T=0.02"],
    "the paper's: linear, fixed_large, simple": [
        *("schedule=linear", "schedule.T=1000", "schedule.beta_1=1e-4", "schedule.beta_T=0.02"),
        *("variance=fixed_large", "objective=simple", "timesteps=uniform"),
    ],
    "32x32": ["data.size=[32,32]", "loader.batch_size=16"],
}
TOY = [
    *("max_steps=2", "network.channels=8", "evaluation.bits_per_dim={images: 8, evaluations: 6}", "sampler.steps=2"),
    *("every={validation: 10, samples: 10}", "loader.batch_size=8", "schedule.T=20"),
]


def found(folder: Path, settings: list[str]) -> dict[str, Any]:
    """The bound of a run, its parts, and the seconds that training and evaluation took."""
    train = [sys.executable, str(record.ROOT / "train.py"), "recipe=photos", "logger=csv", "evaluate_after=true"]
    command, environment = [*train, f"out={folder}", *settings], {**os.environ, "OMP_NUM_THREADS": "2"}
    begun = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder.parent, env=environment, stdout=subprocess.DEVNULL)
    results = json.loads((folder / "results.json").read_text())
    lossless = {each["title"]: each for each in results["codecs"]["lossless"].values()}
    ways = ("value", "each", "together", "each_with_overhead")
    return {
        "bound": results["metrics"]["bits_per_dim"],
        "seconds": time.perf_counter() - begun,
        "codecs": {title: {way: each[way] for way in ways} for title, each in lossless.items()},
        "protocol": results["protocol"]["fingerprint"],
    }


def in_one_piece() -> dict[str, float]:
    """What codecs need for the held-out pixels where they are coded as the two strips that they are."""
    height, (first, last) = (HEIGHT - TOP) // 32 * 32, BAND  # what patches of 16x16 and of 32x32 cover
    strips = torch.from_numpy(photographs()[:, :, TOP : TOP + height, first:last].copy())
    lossless = codecs.summary(codecs.rows(strips))["lossless"]
    return {each["title"]: each["each"] for each in lossless.values()}


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    toy = TOY if args.toy else []
    timed = ["recipe=photos", "trainer.accelerator=cpu", *toy, f"max_steps={3 if args.toy else 80}"]
    speed = record.images_per_second([*timed, f"every.log={1 if args.toy else 20}"], {"OMP_NUM_THREADS": "2"})
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(len(VARIANTS)) as threads:
        folder = (args.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        runs = [folder / str(k) for k in range(len(VARIANTS))]
        everything = [*threads.map(found, runs, [[*settings, *toy] for settings in VARIANTS.values()])]
    numbers = {
        "images/s of training, two threads of the CPU": speed["images/s"],
        "settings": {name: {"changes": VARIANTS[name], **one} for name, one in zip(VARIANTS, everything, strict=True)},
        "codecs, the held-out pixels in one piece": in_one_piece(),
    }
    record.write("photos", numbers, args.records)


if __name__ == "__main__":
    main()
