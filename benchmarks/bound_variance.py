"""How far draws of an estimate of the bound scatter, at the same number of evaluations of the network.

    python benchmarks/bound_variance.py [--run RUN] [--draws 16] [--evaluations 10 20 50] [--toy]

RUN is a run folder of the digits; without it, one is trained first. An estimate is the mean over the test images in
bits/dim without L_T, as `evaluate.py` gives it; its deviation over draws says nothing of the choice of images. Beside
ours stand

- vdm: one evaluation at t = 1, and the others at t that are uniform and stratified over all images and evaluations, by
  one random offset (Kingma et al. 2021, appendix I.1);
- importance: t drawn independently with probability proportional to (E L_{t-1}^2)^(1/2) (Nichol & Dhariwal 2021,
  section 3.3), which is given to it: it is taken from one evaluation at every t of every image.

The whole bound, of all T terms, is a draw, too: its deviation is told by two draws of every term. `--evaluations`
without a number measures nothing else.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor

import ddpm
from ddpm.commands.train import train
from ddpm.data.digits import load_digits_split
from ddpm.data.pixels import to_unit
from ddpm.diffusion import budget
from ddpm.diffusion.likelihood import bits_per_dim, term
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.evaluation.bound import draws_of_x_1
from ddpm.hardware import prepare_for_evaluation
from ddpm.randomness import generator

Estimate = Callable[[int, torch.Generator], Tensor]  # of L - L_T in nats, for each image


def ours(p: ReverseProcess, x_0: Tensor) -> Estimate:
    def estimate(k: int, draw: torch.Generator) -> Tensor:
        pilot, half = budget.split_budget(k)
        design = budget.Design.of(budget.explore(p, x_0, pilot, draw), p.q.T)
        found = budget.estimate(p, x_0, design, half, draw)
        return (found.distortion_nats + found.rate_nats).mean(1)

    return estimate


def vdm(p: ReverseProcess, x_0: Tensor) -> Estimate:
    def estimate(k: int, draw: torch.Generator) -> Tensor:
        n, rest = len(x_0), k - 1
        u = (torch.rand(1, generator=draw) + torch.arange(n * rest) / (n * rest)) % 1
        t = 2 + (u * (p.q.T - 1)).long().clamp(max=p.q.T - 2)
        t = t[torch.randperm(len(t), generator=draw)].reshape(n, rest)
        first = term(p, x_0, torch.ones(n, dtype=torch.long), draw).nats
        return first + (p.q.T - 1) * torch.stack([term(p, x_0, column, draw).nats for column in t.unbind(1)]).mean(0)

    return estimate


def every_term(p: ReverseProcess, x_0: Tensor, draw: torch.Generator) -> Tensor:
    """One draw of L_0, ..., L_{T-1} for each image."""
    return torch.stack([term(p, x_0, torch.full((len(x_0),), t), draw).nats for t in range(1, p.q.T + 1)], 1)


def deviations(once: Tensor, again: Tensor, first: int) -> dict[str, float]:
    """Deviation of the mean over images of the whole bound, with x_1 drawn once and `first` times."""
    variances = (once - again).square().mean(0) / 2 / len(once)
    rest = float(variances[1:].sum())
    drawn = {"x_1 drawn once": 1, f"x_1 drawn {first} times": first}
    return {name: (float(variances[0]) / times + rest) ** 0.5 for name, times in drawn.items()}


def importance(p: ReverseProcess, x_0: Tensor, root_mean_square: Tensor) -> Estimate:
    chance = root_mean_square / root_mean_square.sum()

    def estimate(k: int, draw: torch.Generator) -> Tensor:
        t = 1 + torch.multinomial(chance.expand(len(x_0), -1), k, replacement=True, generator=draw)
        weighted = [term(p, x_0, column, draw).nats / chance[column - 1] for column in t.unbind(1)]
        return torch.stack(weighted).mean(0)

    return estimate


@torch.no_grad()
def main() -> None:
    parser = record.parser(__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[10, 20, 50])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or train(["logger=csv", f"out={folder}/run", *["debug=smoke"] * args.toy])
        p = ddpm.load(str(run))
    prepare_for_evaluation(p.network, bf16=False)
    x_0 = to_unit(load_digits_split()[2][: 20 if args.toy else None])
    draw = generator("cpu", 0, 0)
    table, again = every_term(p, x_0, draw), every_term(p, x_0, draw)
    contenders = {
        "ours": ours(p, x_0),
        "vdm": vdm(p, x_0),
        "importance": importance(p, x_0, table.square().mean(0).sqrt()),
    }
    found: dict[str, dict[str, Any]] = {}
    for k in args.evaluations:
        means: dict[str, list[float]] = {name: [] for name in contenders}
        for seed in range(1, args.draws + 1):
            for name, estimate in contenders.items():
                nats = estimate(k, generator("cpu", seed, k))
                means[name].append(float(bits_per_dim(nats.mean(), x_0[0].numel())))
        deviation = {name: statistics.stdev(values) for name, values in means.items()}
        best = min(deviation["vdm"], deviation["importance"])
        mean = {name: statistics.mean(values) for name, values in means.items()}
        found[str(k)] = {"mean": mean, "deviation": deviation, "ours / better of the others": deviation["ours"] / best}
    once, again = (bits_per_dim(nats, x_0[0].numel()) for nats in (table, again))
    whole = {"one draw": float(once.sum(1).mean()), "deviation": deviations(once, again, draws_of_x_1(p.q.T))}
    about = {"images": len(x_0), "draws": args.draws, "every term": whole, "bits/dim less L_T": found}
    record.write("bound_variance", about, args.records)


if __name__ == "__main__":
    main()
