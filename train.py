"""Train a diffusion model: `python train.py [GROUP=OPTION] [KEY=VALUE] ...`; the same as `ddpm train`."""

from ddpm.__main__ import start

if __name__ == "__main__":
    start("train")
