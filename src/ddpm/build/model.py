"""The model of a configuration: a network and the axes as one reverse process, fresh or with a checkpoint's weights."""

import torch
from omegaconf import DictConfig

from ddpm import hardware
from ddpm.build.data import conditioning
from ddpm.checkpoints import converters, snapshots
from ddpm.checkpoints.checkpoint import Checkpoint, misfit
from ddpm.data.dataset import Dataset
from ddpm.diffusion.prediction import Prediction
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.diffusion.variance import Variance
from ddpm.instantiate import instantiate, takes
from ddpm.networks.network import Network
from ddpm.randomness import seed_of


def network(config: DictConfig, dataset: Dataset) -> Network:
    """A freshly initialised network for data of this shape, and for what it is told of them.

    With a learned variance it has a second output per channel.
    """
    channels, *size = dataset.shape
    outputs = 2 if instantiate(config.variance, Variance).learned else 1
    sized = {"image_size": tuple(size)} if size and takes(config.network, "image_size") else {}
    told = conditioning(config).network_arguments(dataset.shape)
    made_for = {"in_channels": channels, "out_channels": channels * outputs, **sized, **told}
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers go on as they were
        torch.default_generator.manual_seed(seed_of(config.seed))
        return instantiate(config.network, Network, **made_for)


def reverse_process(config: DictConfig, dataset: Dataset) -> ReverseProcess:
    """The forward process, a fresh network and the axes, for data of this shape."""
    return ReverseProcess(
        network(config, dataset),
        ForwardProcess(instantiate(config.schedule, torch.Tensor)),
        instantiate(config.prediction, Prediction),
        instantiate(config.variance, Variance),
        dataset.kind.decoder(config.evaluation.bits_per_dim.decoder),
    )


def trained(saved: Checkpoint, config: DictConfig, dataset: Dataset) -> ReverseProcess:
    """The reverse process with the checkpoint's averaged weights, ready to be evaluated.

    Where the configuration asks for an average of another length (`ema.length`), the run's snapshots make it.

    Raises:
        ValueError: the weights are not this network's, or no such average can be made.
    """
    weights = fitting_weights(saved, config, dataset, "does not hold the weights of its configuration")
    p = reverse_process(config, dataset)
    length, own = config.ema.get("length"), (saved.config.get("ema") or {}).get("length")
    if length != own:
        if length is None:
            raise ValueError(f"{saved.path} holds one average of the weights, of ema={own}")
        names = [name for name, _ in p.network.named_parameters()]
        weights = weights | snapshots.average(saved, names, config.ema.lengths, length)
    p.network.load_state_dict(weights)
    speed_up(p.network, config.trainer)
    return p.requires_grad_(False).eval()


def fitting_weights(saved: Checkpoint, config: DictConfig, dataset: Dataset, complaint: str) -> dict[str, torch.Tensor]:
    """The checkpoint's weights, if they are those of the configuration's network for data of this shape.

    Args:
        complaint: how a message goes on after the checkpoint's path.

    Raises:
        ValueError: they are not.
    """
    with torch.device("meta"):  # shapes are compared before anything is allocated
        shapes = network(config, dataset)
    weights = converters.split_qkv(saved.weights, shapes)
    if problem := misfit(weights, shapes.state_dict()):
        raise ValueError(f"{saved.path} {complaint}: {problem}")
    return weights


def speed_up(network: torch.nn.Module, trainer: DictConfig) -> None:
    """Set the network's layout and compilation in place, and PyTorch up for it (attention, freed memory).

    No name in the state_dict changes.

    Raises:
        ValueError: nothing can be compiled here.
    """
    hardware.keep_freed_memory()
    hardware.narrow_attention()
    lay_out(network, trainer)
    if trainer.compile:
        hardware.require_compiler()
        network.compile(mode=trainer.compile, dynamic=False)


def lay_out(network: torch.nn.Module, trainer: DictConfig) -> None:
    """Set the memory layout of weights in place."""
    on_gpu = hardware.device_type(trainer.accelerator) == "cuda"
    if on_gpu if trainer.channels_last == "auto" else trainer.channels_last:
        network.to(memory_format=torch.channels_last)
