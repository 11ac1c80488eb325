"""What each common error of protocol does to FID, on the digits: the table in docs/faq.md.

    python benchmarks/protocol_errors.py [--run RUN] [--seeds 3] [--toy]

RUN is a finished run folder of `python train.py`; without it, one is trained first. A row changes one thing of what
`evaluate.py` does and leaves the rest. Differences are taken between FIDs of the same noise, so they vary less than the
FIDs themselves.
"""

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import record
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm import build
from ddpm.checkpoints import checkpoint, safe_reading
from ddpm.config.evaluation import compose_evaluation
from ddpm.data.digits import load_digits_split
from ddpm.data.pixels import to_uint8, to_unit
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import Sampler
from ddpm.evaluation.samples import SAMPLES
from ddpm.hardware import prepare_for_evaluation
from ddpm.metrics.features import Digits
from ddpm.metrics.fid import frechet_distance
from ddpm.metrics.statistics import FeatureStatistics
from ddpm.randomness import generator

RIGHT = "none: as evaluate.py does it"
RAW_PREFIX = "p.network."  # of the weights that are trained; checkpoint.EMA_PREFIX is that of their average
PROCESSES = 8  # neither 1,500 samples nor 297 test images divide by it
Images = Tensor  # float [n, 1, 8, 8], gray levels scaled to [-1, 1]


class Model(NamedTuple):
    """A reverse process, and what evaluate.py would draw from it."""

    p: ReverseProcess
    sampler: Sampler
    shape: tuple[int, ...]
    count: int
    chunk: int

    def draw(self, seed: int, clip: bool = True) -> Images:
        """The samples of `evaluation.seed=SEED`, before they become bytes."""
        drawn = []
        for k in range(-(-self.count // self.chunk)):
            noise = generator("cpu", seed, SAMPLES, k)
            x_T = torch.randn((self.chunk, *self.shape), generator=noise)
            *_, last = self.sampler(self.p, x_T, noise, clip=clip)
            drawn.append(last.x_t)
        return torch.cat(drawn)[: self.count]


def model(file: Path, raw: bool = False) -> Model:
    """A checkpoint's model, with its averaged weights or with those that were trained."""
    saved = checkpoint.load(file)
    config = compose_evaluation(saved.config, [])
    images, asked = build.dataset(config), config.evaluation
    p = build.trained(saved, config, images)
    if raw:
        state = safe_reading.read(file)["state_dict"]
        own = {key.removeprefix(RAW_PREFIX): value for key, value in state.items() if key.startswith(RAW_PREFIX)}
        p.network.load_state_dict(own)
    prepare_for_evaluation(p.network, bf16=False)
    return Model(p, build.sampler(config), images.shape, asked.num_samples, asked.chunk)


def rounded(x: Images) -> Images:
    """This rounds to the nearest of 256 gray levels, as evaluate.py stores samples."""
    return to_unit(to_uint8(x))


def truncated(x: Images) -> Images:
    """This takes the gray level below, as `(127.5 * x + 127.5).to(uint8)` stores samples."""
    return to_unit((127.5 * x.clamp(-1, 1) + 127.5).to(torch.uint8))


def resized(x: Images) -> Images:
    """Enlarged to 12x12, stored, and shrunk to 8x8 again."""
    large = rounded(F.interpolate(x, (12, 12), mode="bilinear"))
    return rounded(F.interpolate(large, (8, 8), mode="bilinear"))


def padded(x: Images) -> Images:
    """This repeats the first samples until every process has as many, as DistributedSampler does."""
    return x[torch.arange(-(-len(x) // PROCESSES) * PROCESSES) % len(x)]


def repeated(x: Images) -> Images:
    """This gives every process the same samples, as one seed for all of them does."""
    return x[torch.arange(len(x)) % -(-len(x) // PROCESSES)]


def fids(run: Path, seed: int) -> dict[str, float]:
    """FID with each error, by what the error is."""
    torch.set_num_threads(1)  # the seeds share the cores
    extractor, (train, _, test, _) = Digits(), load_digits_split()
    train, test = to_unit(train), to_unit(test)

    def fid(samples: Images, real: Images = test) -> float:
        with torch.no_grad():
            found, due = (FeatureStatistics.of(extractor.classifier(x).pool) for x in (samples, real))
        return frechet_distance(found, due)

    last, earlier = (run / "checkpoints" / name for name in (checkpoint.LAST, checkpoint.PREVIOUS))
    drawn = model(last).draw(seed)
    samples = rounded(drawn)
    half, tenth = len(samples) // 2, len(samples) // 10
    return {
        RIGHT: fid(samples),
        "reference: the train split": fid(samples, train),
        "count: half of the samples": fid(samples[:half]),
        "count: a tenth of them": fid(samples[:tenth]),
        "rounding: samples truncated to bytes": fid(truncated(drawn)),
        "rounding: samples not rounded": fid(drawn.clamp(-1, 1)),
        "resize: samples by way of 12x12": fid(resized(drawn)),
        "resize: samples and real images by way of 12x12": fid(resized(drawn), resized(test)),
        "weights: raw, at the end (learning rate 0)": fid(rounded(model(last, raw=True).draw(seed))),
        "weights: averaged, 350 steps earlier": fid(rounded(model(earlier).draw(seed))),
        "weights: raw, 350 steps earlier": fid(rounded(model(earlier, raw=True).draw(seed))),
        "clip: x_0 not clipped while sampling": fid(rounded(model(last).draw(seed, clip=False))),
        "DDP: samples padded to a multiple of 8": fid(padded(samples)),
        "DDP: real images padded to a multiple of 8": fid(samples, padded(test)),
        "DDP: the same seed on all 8 processes": fid(repeated(samples)),
    }


def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or Path(folder, "run")
        if args.run is None:
            command = [sys.executable, str(record.ROOT / "train.py"), "logger=csv", f"out={run}"]
            subprocess.run([*command, *["debug=smoke"] * args.toy], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        with ProcessPoolExecutor(args.seeds, multiprocessing.get_context("spawn")) as processes:
            by_seed = [*processes.map(fids, [run] * args.seeds, range(args.seeds))]
    table = {}
    for error in by_seed[0]:
        differences = [found[error] - found[RIGHT] for found in by_seed]
        table[error] = {
            "fid": statistics.mean(found[error] for found in by_seed),
            "difference": statistics.mean(differences),
            "deviation": statistics.stdev(differences) if args.seeds > 1 else None,
        }
    rights = [found[RIGHT] for found in by_seed]
    spread = statistics.stdev(rights) if args.seeds > 1 else None
    record.write("protocol_errors", {"seeds": args.seeds, "deviation of FID": spread, "errors": table}, args.records)


if __name__ == "__main__":
    main()
