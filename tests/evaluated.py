"""Evaluations of a model with random weights, by one process or several: a module that the processes can import."""

import json
from datetime import timedelta

import torch
import torch.distributed as dist
from peer_networks import randomise

from ddpm import build
from ddpm.config.compose import compose
from ddpm.launch import Rank

CPU = torch.device("cpu")
SMALL = [
    "schedule=linear",
    "prediction=eps",
    "schedule.T=20",
    "sampler.steps=4",
    "network.channels=16",
    "evaluation.num_samples=101",
    "evaluation.chunk=20",
    "evaluation.bits_per_dim.images=101",
    "evaluation.kid={subsets: 3, subset_size: 50}",
    "evaluation.metrics=[inception_score,fid,kid,precision_recall,bits_per_dim]",
]


def made(*overrides):
    """A model with random weights and its evaluation."""
    one_level = [] if "recipe=swiss_roll" in overrides else ["network.channel_mult=[1]"]
    config = compose([*SMALL, *one_level, *overrides])
    images = build.dataset(config)
    p = build.reverse_process(config, images).requires_grad_(False)
    randomise(p.network, config.seed)  # fresh networks end in a layer of nearly 0, and are nearly the same
    return p, build.evaluation(config, images)


def evaluated(*overrides, place=Rank(0, 1, CPU), folder=None):  # noqa: B008
    p, evaluation = made(*overrides)
    return evaluation.run(p, place, {"ckpt": "none"}, folder)


def process(rank, world_size, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store{world_size}"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    place = Rank(rank, world_size, CPU)
    shared = folder / f"processes{world_size}"
    full = evaluated("evaluation.fid_split=both", "evaluation.split=both", place=place, folder=shared)
    quick = evaluated(
        "evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.evaluations=9", place=place, folder=shared
    )
    found = {
        "full": full.metrics,
        "quick": quick.metrics,
        "real": full.real,
        "fingerprint": full.protocol["fingerprint"],
    }
    (folder / f"{world_size}-{rank}.json").write_text(json.dumps(found))
    if rank == 0:
        full.pictures["samples"].save(folder / f"{world_size}.png")
    dist.destroy_process_group()
