"""Times for a sampler, learned for a checkpoint.

    ddpm steps ckpt=PATH steps=N [sampler=NAME] [to=FILE] [chains=256] [fine=200] [KEY=VALUE] ...

A sampler that evaluates the network N times ends elsewhere than one that does so `fine` times from the same noise. Its
times are moved until the ends of `chains` chains are as near as they get, and tried on as many chains of other noise.
FILE is what `sampler.times=FILE` takes; `ckpt` and KEY=VALUE are those of evaluate.py.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ddpm import build, launch
from ddpm.checkpoints import checkpoint
from ddpm.config.errors import RequestError, request_errors
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import as_typed, parse, path_of, quote, quote_paths, split_keys
from ddpm.config.saved import plain
from ddpm.data.conditioning import OfSamples
from ddpm.data.dataset import Dataset
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.sampler import SPACINGS, Sampler
from ddpm.evaluation.protocol import digest_of_weights
from ddpm.files import write_whole
from ddpm.instantiate import instantiate, takes
from ddpm.messages import say, typed
from ddpm.progress import Bar
from ddpm.randomness import generator
from ddpm.samplers import times as files
from ddpm.samplers.learned import Chains, search, tries

NUMBERS = {"steps": (None, 2), "chains": (256, 2), "fine": (200, 3)}  # what they are by default, and at least
PLAIN = re.compile(r"[\w./ -]+", re.ASCII)  # which Hydra's grammar reads without quotes
LEARNING, HELD_OUT = 20, 21  # what a generator is for


@dataclass(frozen=True)
class Request:
    """What is to be learned, for which model, and where it goes."""

    config: DictConfig
    dataset: Dataset
    p: ReverseProcess
    guidance: Guidance
    told: OfSamples  # what each chain's network is told
    chains: int
    finest: Sampler  # whose ends are to be met
    grids: dict[str, list[int]]  # the times of each spacing
    file: Path
    words: Sequence[str]  # of `ddpm evaluate`, to use what is learned


@dataclass(frozen=True)
class Learned:
    """Times, and how far from the finest chain's ends theirs and those of each spacing are."""

    times: list[int]
    learning: dict[str, float]  # on the noise that was learned from
    held_out: dict[str, float]  # on other noise


def steps(overrides: list[str]) -> Path:
    """Learn times, and write them.

    Returns:
        The file.

    Raises:
        RequestError: the request is wrong; nothing was written.
    """
    with request_errors():  # a wrong request ends here, before anything is written
        request = _checked(overrides)
    rank = launch.launch(request.config.trainer)
    if rank.index == 0:
        learned = _learn(request, rank.device)
        _write(request, learned)
        distances = ", ".join(f"{name} {value:.4f}" for name, value in learned.held_out.items())
        say(
            f"distance of x_0 from that of the fine chain, on noise that was not learned from: {distances}",
            f"times: {', '.join(map(str, learned.times))}",
            f"use them: {typed('evaluate', *request.words)}",
        )
    return request.file


def _checked(overrides: list[str]) -> Request:
    own, others = split_keys(overrides, ("to", *NUMBERS))
    n, chains, fine = (_whole(key, own.get(key)) for key in NUMBERS)
    said = {parsed.key_or_group: text for text, parsed in zip(as_typed(others), parse(others), strict=True)}
    if learned := said.keys() & {"sampler.steps", "sampler.times"}:
        raise RequestError(f"{min(learned)}= is what is learned here: steps=N says how many times")
    saved = checkpoint.load(path_of("ckpt", others))
    config = compose_evaluation(saved.config, [*others, f"sampler.steps={n}"])
    launch.count_processes(config.trainer)  # raises where that is not possible
    dataset = build.dataset(config)
    p, guidance = build.trained(saved, config, dataset), build.guidance(config, dataset)
    finest = _finest(config, p.q, n, fine)
    grids = {spacing: _sampler(config, spacing=spacing).nodes(p.q) for spacing in SPACINGS}
    told = OfSamples(build.conditioning(config), dataset, "train", config.evaluation.seed)
    if told.conditioning.needs:
        dataset.prepare()
        told.conditioning.check(dataset)
    file = _new(own.get("to") or (saved.run or Path()) / f"times_{config.choices.sampler}_{n}.json")
    said.pop("sampler.spacing", None)  # times stand in its place
    here = {"ckpt": saved.run or saved.path, "sampler": config.choices.sampler, "sampler.steps": n}
    words = said | {key: f"{key}={value}" for key, value in here.items()}
    words["sampler.times"] = f"sampler.times={file if PLAIN.fullmatch(str(file)) else quote(str(file))}"
    return Request(config, dataset, p, guidance, told, chains, finest, grids, file, [*words.values()])


def _learn(request: Request, device: torch.device) -> Learned:
    """The times whose chains end nearest to the finest ones, from those of the nearest spacing on."""
    grids, condition = request.grids, request.told(range(request.chains))
    guided = request.guidance(request.p.to(device)).to(device).given(condition)

    def drawn(what: int) -> Chains:
        draw = generator(device, request.config.evaluation.seed, what)
        x_T = torch.randn((request.chains, *request.dataset.shape), generator=draw, device=device)
        return Chains(guided, x_T, draw, request.finest)

    def distances(chains: Chains, grids: dict[str, list[int]]) -> dict[str, float]:
        return {name: chains.distance(_sampler(request.config, times=[*times])) for name, times in grids.items()}

    learning, held_out = drawn(LEARNING), drawn(HELD_OUT)
    far = distances(learning, grids)
    first = min(far, key=far.__getitem__)
    with Bar("times tried", tries(len(grids[first]))) as bar:

        def distance(times: Sequence[int]) -> float:
            found = learning.distance(_sampler(request.config, times=[*times]))
            bar.advance()
            return found

        times, nearest = search(grids[first], distance)
    return Learned(times, {**far, "learned": nearest}, distances(held_out, {**grids, "learned": times}))


def _write(request: Request, learned: Learned) -> None:
    q = request.p.q
    content = {
        **files.described(learned.times, q),
        "sampler": plain(request.config.sampler),
        "weights_sha256": digest_of_weights(request.p),
        "distance": {
            "from_steps": request.finest.num_evaluations(q),
            "chains": request.chains,
            "learning": learned.learning,
            "held_out": learned.held_out,
        },
    }
    write_whole(request.file, json.dumps(content, indent=2) + "\n")


def _whole(key: str, said: str | None) -> int:
    default, least = NUMBERS[key]
    if said is None and default is not None:
        return default
    if said is None or not said.isdecimal() or int(said) < least:
        raise RequestError(f"{key}={said or ''} must be a whole number of at least {least}")
    return int(said)


def _sampler(config: DictConfig, **settings: Any) -> Sampler:
    """The sampler of the configuration with other settings."""
    node = OmegaConf.create({**plain(config)["sampler"], "times": None, **settings})
    return instantiate(node, Sampler)


def _finest(config: DictConfig, q: ForwardProcess, n: int, fine: int) -> Sampler:
    """The sampler whose ends are to be met."""
    if not (takes(config.sampler, "times") and takes(config.sampler, "spacing")):
        raise RequestError(f"sampler={config.choices.sampler} takes no times")
    finest = _sampler(config, steps=min(fine, q.T))
    if finest.num_evaluations(q) <= n:
        raise RequestError(f"fine={fine} must be more than steps={n}, and so must T, which is {q.T}")
    if finest.stochastic and any(t <= s for t, s in pairwise(finest.steps(q))):
        raise RequestError(
            "times are learned from chains of the same noise, and sampler.S_churn adds noise: use sampler.S_churn=0"
        )
    return finest


def _new(file: str | Path) -> Path:
    file = Path(file).expanduser().absolute()
    if file.exists() or not file.parent.is_dir():
        raise RequestError(f"to={file} must be a new file in a folder that is there: choose another")
    return file


def main(arguments: list[str]) -> int:
    steps(quote_paths(arguments))
    return 0
