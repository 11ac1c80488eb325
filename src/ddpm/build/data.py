"""The data of a configuration, and what a network is told of each example."""

from omegaconf import DictConfig

from ddpm.data.conditioning import Conditioning, classes_of
from ddpm.data.dataset import Dataset
from ddpm.data.module import DataModule
from ddpm.instantiate import instantiate


def dataset(config: DictConfig, given: Dataset | None = None) -> Dataset:
    """The dataset of the configuration, or the one that is given in its place.

    No data are read yet, unless it takes them to count their classes.

    Where the condition leaves their number open, it is written into the configuration, and so into what is saved.

    Raises:
        DataError: the condition needs classes, and there are none.
    """
    built = instantiate(config.data, Dataset) if given is None else given
    if config.condition.get("classes", 0) is None:
        config.condition.classes = classes_of(built)
    return built


def conditioning(config: DictConfig) -> Conditioning:
    """What the network is told of each example.

    Raises:
        ValueError: there are pairs of pictures, and it is not told of them.
    """
    if config.data.get("condition_path") and config.condition.get("source") != "paired":
        raise ValueError("data.condition_path is told to a network with condition=image condition.source=paired")
    return instantiate(config.condition, Conditioning)


def data_module(config: DictConfig, dataset: Dataset, processes: int = 1) -> DataModule:
    """Prepare and open the data; what cannot be read, or shared out among the processes, fails here."""
    data = DataModule(
        dataset,
        config.loader.batch_size,
        config.seed,
        config.max_steps,
        config.trainer.accumulate,
        config.loader.num_workers,
        resident=config.trainer.resident,
        processes=processes,
        chunk=config.evaluation.chunk,
        conditioning=conditioning(config),
        validated=config.evaluation.bits_per_dim.images,
    )
    data.prepare_data()
    data.setup()
    return data
