"""The default run: from the command to the first step, beside `import lightning`; and what a step costs beyond PyTorch.

    python benchmarks/startup.py [--rounds 5] [--steps 200] [--toy]

Start-ups take turns, each in a process of its own, with `logger=csv` and with W&B offline. The steps are those of
`train.py` in Lightning's Trainer, with pictures, validation and checkpoints put off, beside a bare loop over the same
network, batch and optimizer.
"""

import itertools
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peers
import record
import torch

ROOT = Path(__file__).parents[1]
LATER = [f"every.{what}=1000000" for what in ("validation", "samples", "checkpoint")]


def seconds_of(code: str, folder: str) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def until_first_step(logger: str) -> str:
    """A program that runs train.py and ends where its first step begins."""
    return (
        f"import os, runpy, sys; sys.argv = ['train.py', 'logger={logger}'];"
        "from ddpm import module; module.DiffusionModule.training_step = lambda *_: os._exit(0);"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    )


def milliseconds_in_trainer(steps: int) -> float:
    """Median time from one step's beginning to the next, in this process."""
    from ddpm.training.module import DiffusionModule

    begun: list[float] = []
    plain = DiffusionModule.training_step

    def timed(self: DiffusionModule, *args: Any) -> torch.Tensor:
        begun.append(time.perf_counter())
        return plain(self, *args)

    DiffusionModule.training_step = timed  # type: ignore[method-assign]
    sys.argv = ["train.py", "logger=csv", f"max_steps={steps}", *LATER]
    try:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    DiffusionModule.training_step = plain  # type: ignore[method-assign]
    return 1e3 * statistics.median(later - now for now, later in itertools.pairwise(begun[5:]))


def main() -> None:
    parser = record.parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    rounds, steps = (1, 20) if args.toy else (args.rounds, args.steps)
    with tempfile.TemporaryDirectory() as folder:
        programs = {"import lightning": "import lightning"}
        programs |= {f"first step, logger={logger}": until_first_step(logger) for logger in ("csv", "wandb")}
        seconds = record.turns({name: lambda c=code: seconds_of(c, folder) for name, code in programs.items()}, rounds)
        os.chdir(folder)
        bare = peers.Ours(peers.DIGITS, torch.device("cpu"), bf16=False)
        x_0 = torch.rand(64, 1, 8, 8) * 2 - 1
        before = record.once(lambda: bare.train_step(x_0), steps)
        trainer = milliseconds_in_trainer(steps)
        after = record.once(lambda: bare.train_step(x_0), steps)
        os.chdir(ROOT)
    loop = 1e3 * (before + after) / 2
    lightning = seconds.pop("import lightning")
    numbers = {
        "seconds": {"import lightning": lightning, **seconds},
        "seconds beyond import lightning": {name: s - lightning for name, s in seconds.items()},
        "milliseconds per step": {"train.py": trainer, "bare loop": loop},
        "share of the step beyond the bare loop": 1 - loop / trainer,
    }
    record.write("startup", numbers, args.records)


if __name__ == "__main__":
    main()
