"""What the rules of `ddpm diagnose` see in a healthy run and in runs with a fault planted in each.

    python benchmarks/planted_faults.py [--runs FOLDER] [--toy]

The runs are of the digits with half of the recipe's channels, a minute or two each on a core; those in FOLDER already
are not trained again.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import record
from PIL import Image
from sklearn.datasets import load_digits

from ddpm.commands.train import train
from ddpm.report import collect, diagnosis
from ddpm.report.run import ReportedRun

SMALL = (
    *("experiment=table2_eps_simple", "optimizer.lr=3e-3", "loader.batch_size=64", "logger=csv"),
    *("network.channels=16", "max_steps=600"),
    "every={log: 10, validation: 50, samples: 9999, checkpoint: 9999}",
)
PLANTED = {
    "nothing": ["max_steps=1000"],
    "learning rate too high": ["optimizer.lr=0.3"],
    "learning rate too low": ["optimizer.lr=3e-5"],
    "too few steps": ["max_steps=200"],
    "average too long": ["ema.decay=0.9999"],
    "memorising": [
        *("data=folder", "data.path=few", "data.size=[8,8]", "data.channels=1", "data.horizontal_flip=false"),
        *("loader.batch_size=40", "optimizer.anneal=false", "max_steps=900"),
    ],
}


def write_few(folder: Path) -> None:
    """Forty digits to train on, and a hundred to test on."""
    for split, first, n in (("train", 0, 40), ("test", 1500, 100)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for k, digit in enumerate(load_digits().images[first : first + n]):
            Image.fromarray((digit * 15.9375).round().astype(np.uint8)).save(folder / split / f"{k:03d}.png")


def planted(name: str, out: Path, *more: str) -> ReportedRun:
    """The run with this fault, trained unless it is there. `few` lies in the current folder."""
    if not out.exists():
        train([*SMALL, *PLANTED[name], *more, f"out={out}"])
    (run,) = collect.within([out])
    return run


def seen(run: ReportedRun) -> dict[str, Any]:
    """The numbers that the rules compare with their thresholds, and what they find."""
    loss, norm = (run.history[name] for name in (diagnosis.LOSS, diagnosis.GRADIENT))
    untrained, norms = loss[1][0], diagnosis.tenths(norm)
    steps, bound = diagnosis.bounds(run)[0]
    half = max((k for k, step in enumerate(steps) if step <= steps[-1] / 2), default=0)
    return {
        "untrained loss": untrained,
        "largest loss / untrained": max(loss[1]) / untrained,
        "early loss / untrained": diagnosis.early(loss) / untrained,
        "gradient's norm, last tenth / first": norms[-1] / norms[0] if norms else math.nan,
        "fall of the bound when steps doubled": bound[half] / bound[-1] - 1,
        "initial weights in their average": float(run.config["ema"]["decay"]) ** loss[0][-1],
        "found": [each.name for each in diagnosis.findings(run)],
    }


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/planted"))
    args = parser.parse_args()
    write_few(Path("few"))
    more = ["max_steps=100"] if args.toy else []
    numbers = {name: seen(planted(name, args.runs / name.replace(" ", "_"), *more)) for name in PLANTED}
    record.write("planted_faults", numbers, args.records)


if __name__ == "__main__":
    main()
