"""Measure a checkpoint: `python evaluate.py ckpt=PATH [GROUP=OPTION] [KEY=VALUE] ...`; the same as `ddpm evaluate`."""

from ddpm.__main__ import start

if __name__ == "__main__":
    start("evaluate")
