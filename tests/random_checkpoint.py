"""A checkpoint of ours with random weights: what a run would have left, without the run."""

import torch
from peer_networks import randomise

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.config.compose import compose
from ddpm.config.saved import plain


def saved(file, *overrides, gain=1.0):
    """The file, with the model of these overrides in it; `gain` multiplies the weights of the last layer."""
    config = compose(overrides)
    network = randomise(build.network(config, build.dataset(config)), seed=0)
    if gain != 1:
        with torch.no_grad():
            network.conv_out.weight.mul_(gain)
    weights = {checkpoint.EMA_PREFIX + key: value for key, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "config": plain(config), "global_step": 7}, file)
    return file
