"""Golden curves: loss and gradient norm of the first steps of each recipe that runs on a CPU, by seed.

`tests/golden/NAME.json` holds them with the versions that made them. After a change that is meant to move them,
`make golden` writes them anew; the difference belongs in the commit that made it.
"""

import contextlib
import csv
import io
import json
import os
import platform
import tempfile
from pathlib import Path

import lightning
import numpy as np
import torch
from PIL import Image

from ddpm.commands.train import train

FOLDER = Path(__file__).parent / "golden"
STEPS, SEEDS = 10, (1, 2)
NAMES = ("train/loss", "train/gradient_norm")
# The learning rate rises within these steps and falls again, so that the optimizer's part is seen.
SHORT = [
    *("logger=csv", "trainer.accelerator=cpu", f"max_steps={STEPS}", "optimizer.warmup=4", "sampler.steps=3"),
    *("every.log=1", "every.validation=100", "every.samples=100", "every.checkpoint=100"),
]
PICTURES = ["data=folder", "data.path=pictures", "data.size=[8,8]", "data.horizontal_flip=true"]
RECIPES = {
    "digits": ["recipe=digits"],
    "swiss_roll": ["recipe=swiss_roll"],
    "photos": [
        *("recipe=photos", "trainer.precision=32-true", "loader.batch_size=16", "network.channels=16"),
        "evaluation.bits_per_dim.images=20",
    ],
    "folder": [*PICTURES, "prediction=v", "variance=learned_range", "objective=hybrid", "trainer.accumulate=2"],
}


def draw_pictures(folder, count=300):
    """Colour pictures of 8x8: straight gradients from one random colour to another, in any direction."""
    folder.mkdir()
    for k in range(count):
        draw = np.random.default_rng(k)
        angle, (first, last) = draw.uniform(0, 2 * np.pi), draw.uniform(0, 255, (2, 3))
        y, x = np.mgrid[:8, :8] / 3.5 - 1
        share = (np.cos(angle) * x + np.sin(angle) * y) / (2 * np.sqrt(2)) + 0.5
        pixels = first + share[:, :, None] * (last - first)
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{k:03d}.png")


def curves(name, seed):
    """The numbers of the first steps by name; in the current directory, which has pictures/ for those that need it."""
    with contextlib.redirect_stdout(io.StringIO()):
        train([*SHORT, *RECIPES[name], f"seed={seed}", f"out={name}-{seed}"])
    with Path(f"{name}-{seed}", "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row[NAMES[0]]]
    return {key: [float(row[key]) for row in rows] for key in NAMES}


def versions():
    return {"torch": torch.__version__, "lightning": lightning.__version__, "machine": platform.machine()}


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        draw_pictures(Path("pictures"))
        for name, settings in RECIPES.items():
            found = {str(seed): curves(name, seed) for seed in SEEDS}
            content = {"made_by": versions(), "settings": [*SHORT, *settings], "seeds": found}
            (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
