"""Draws the charts that W&B shows of runs from their files, runs side by side; those of docs/charts.md are made so.

    python scripts/draw_charts.py RUN train/loss quarters validation -o charts.png
    python scripts/draw_charts.py "lr 0.003=RUN" "lr 0.03=RUN" train/loss train/gradient_norm -o learning_rate.png
    python scripts/draw_charts.py RUN progressive -o progressive.png

A panel for each name: a column of metrics.csv, `quarters` (of train/loss), `validation` (bits/dim), `terms_by_t` (of an
evaluation with all terms); or, alone, `samples` or `progressive`: pictures of several steps, below each other.
"""

import argparse
import csv
from itertools import accumulate
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ddpm.figures.display import CHAINS, GRID_SIDE
from ddpm.loggers.by_t import edges_of_t, means_by_t

SMOOTHED = ("train/loss", "train/gradient_norm", "quarters")  # on logarithmic axes
SMOOTHING = 0.9  # weight of the past
PICTURES = {"samples": GRID_SIDE, "progressive": CHAINS}  # and their rows
ROWS, LETTER = 2, 22  # that are shown of them; pixels


def column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """The steps at which a metric was logged, and its values."""
    logged = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    steps, values = zip(*logged, strict=True) if logged else ((), ())
    return list(steps), list(values)


def smoothed(values: list[float]) -> list[float]:
    """An exponential average, of logarithms, without the bias towards its beginning."""
    sums = accumulate(np.log(values), lambda past, value: SMOOTHING * past + (1 - SMOOTHING) * value, initial=0.0)
    return [float(np.exp(total / (1 - SMOOTHING**n))) for n, total in enumerate(sums) if n]


def draw(axes: Axes, run: Path, panel: str, label: str) -> None:
    """One run in one panel."""
    if panel == "terms_by_t":
        t, terms = np.genfromtxt(run / "bound.csv", delimiter=",", names=True, unpack=True, usecols=(0, 1))
        axes.stairs(means_by_t(t.tolist(), terms.tolist(), len(t)), edges_of_t(len(t)), label=label)
        axes.set(xlabel="t", yscale="log")
        return
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {panel: label}
    if panel == "quarters":
        names = {f"train/loss_quarter_{k}": f"quarter {k}" for k in range(1, 5)}
    elif panel == "validation":
        names = {name: label for name in rows[0] if name.startswith("validation/bits_per_dim")}
    for name, of in names.items():
        steps, values = column(rows, name)
        if panel not in SMOOTHED:
            axes.plot(steps, values, marker="." if panel == "validation" else "", label=of)
            continue
        (raw,) = axes.plot(steps, values, linewidth=0.6, alpha=0.35)
        axes.plot(steps, smoothed(values), color=raw.get_color(), label=of)
    axes.set(xlabel="step", yscale="log" if panel in SMOOTHED else "linear")


def charts(runs: dict[str, Path], panels: list[str], out: Path) -> None:
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure = Figure((3.3 * across, 2.5 * down), layout="constrained")
    for axes, panel in zip(figure.subplots(down, across, squeeze=False).flat, panels, strict=False):
        for label, run in runs.items():
            draw(axes, run, panel, label)
        axes.set_title({"validation": "validation/bits_per_dim"}.get(panel, panel), fontsize=10)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=7, handlelength=1, framealpha=0.6)
    for axes in figure.axes[len(panels) :]:
        axes.remove()
    figure.savefig(out, dpi=100)


def pictures(run: Path, kind: str, out: Path) -> None:
    """The first rows of the pictures of all steps."""
    font = ImageFont.load_default(LETTER * 0.75)
    shown = []
    for path in sorted((run / kind).glob("step_*.png")):
        picture = Image.open(path).convert("RGB")
        tile, gap = divmod(picture.height, PICTURES[kind])
        picture = picture.crop((0, 0, picture.width, ROWS * tile + gap))
        shown.append((f"step {int(path.stem.removeprefix('step_')):,}", picture))
    whole = Image.new("RGB", (shown[0][1].width, sum(picture.height + LETTER for _, picture in shown)), "white")
    top = 0
    for title, picture in shown:
        ImageDraw.Draw(whole).text((4, top + 1), title, "black", font)
        whole.paste(picture, (0, top + LETTER))
        top += picture.height + LETTER
    whole.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="[LABEL=]RUN or PANEL")
    parser.add_argument("-o", "--out", type=Path, required=True)
    asked = parser.parse_args()
    folders = {word: Path(word.rpartition("=")[2]) for word in asked.words}
    runs = {word.rpartition("=")[0] or word: path for word, path in folders.items() if path.is_dir()}
    panels = [word for word, path in folders.items() if not path.is_dir()]
    if not runs or not panels:
        parser.error("name run folders and panels")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    if panels[0] in PICTURES:
        pictures(next(iter(runs.values())), panels[0], asked.out)
    else:
        charts(runs, panels, asked.out)


if __name__ == "__main__":
    main()
