"""The training curves of float32 and bf16-mixed, from the same seed, on pictures of yours: docs/precision.png.

    python benchmarks/precision.py PICTURES [--steps 300] [--picture docs/precision.png]

Pictures are cut to 16x16. Loss and held-out bits/dim by step; the record holds the difference of the precisions beside
that of another seed.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import record
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RUNS = {"32-true, seed 1": ("32-true", 1), "bf16-mixed, seed 1": ("bf16-mixed", 1), "32-true, seed 2": ("32-true", 2)}
LOSS, BITS = "train/loss", "validation/bits_per_dim_16_timesteps"
SETTINGS = [
    "data=folder",
    "data.size=[16,16]",
    "loader.batch_size=32",
    "features=inception",
    "logger=csv",
    "every.samples=1000000",
    "network.channels=32",
    "network.channel_mult=[1,2]",
    "network.attention_resolutions=[8]",
]


def curves(pictures: Path, precision: str, seed: int, steps: int, folder: str) -> dict[str, dict[int, float]]:
    """The logged numbers of one run by name and step."""
    out = Path(folder, f"{precision}_{seed}")
    own = [f"data.path={pictures.absolute()}", f"out={out}", f"seed={seed}", f"trainer.precision={precision}"]
    length = [f"max_steps={steps}", f"every.log={max(1, steps // 40)}", f"every.validation={max(1, steps // 4)}"]
    command = [sys.executable, str(ROOT / "train.py"), *SETTINGS, *own, *length]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: {int(row["step"]): float(row[key]) for row in rows if row.get(key)} for key in (LOSS, BITS)}


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "precision.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: curves(args.pictures, *run, 20 if args.toy else args.steps, folder) for name, run in RUNS.items()
        }
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), (LOSS, BITS), ("loss", "held-out bits/dim"), strict=True):
        for name, style in zip(RUNS, ("-", "--", ":"), strict=True):
            axes.plot(list(found[name][key]), list(found[name][key].values()), style, label=name)
        axes.set(xlabel="step", ylabel=label, yscale="log" if key == LOSS else "linear")
    axes.legend()
    figure.savefig(args.picture, dpi=110)

    def mean_difference(one: str, other: str, key: str) -> float:
        pairs = zip(found[one][key].values(), found[other][key].values(), strict=True)
        relative = [abs(a - b) / b for a, b in pairs]
        return sum(relative) / len(relative)

    one, other, seed = RUNS
    numbers = {
        "mean relative difference": {
            key: {"of the precision": mean_difference(other, one, key), "of the seed": mean_difference(seed, one, key)}
            for key in (LOSS, BITS)
        }
    }
    record.write("precision", numbers, args.records)


if __name__ == "__main__":
    main()
