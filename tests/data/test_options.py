import inspect
import sys
from pathlib import Path

import hydra
import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from ddpm.data.dataset import Dataset
from ddpm.data.hugging_face import HuggingFace

CONF = Path(__file__).parents[2] / "conf" / "data"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_every_dataset_is_an_option():
    assert OPTIONS == [
        "celeba_hq",
        "cifar10",
        "digits",
        "fashion_mnist",
        "folder",
        "given",
        "hf",
        "lsun_bedroom",
        "lsun_cat",
        "lsun_church",
        "mnist",
        "photos",
        "swiss_roll",
    ]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_argument_can_be_overridden(option):
    """Hydra overrides only what a file names, so that each names all arguments."""
    config = OmegaConf.load(CONF / f"{option}.yaml")
    arguments = inspect.signature(get_class(config._target_)).parameters
    assert set(config) - {"_target_"} == set(arguments)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_shape_is_known_before_there_is_data(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        dataset = instantiate(hydra.compose(option))
    assert isinstance(dataset, Dataset)
    assert dataset.name == option
    sizes = {"digits": 8, "given": 8, "photos": 16, "celeba_hq": 256, "swiss_roll": None}
    size = sizes.get(option, 256 if "lsun" in option else 32)
    channels = 1 if option in ("digits", "given", "mnist", "fashion_mnist") else 3
    assert dataset.shape == ((2,) if size is None else (channels, size, size))
    assert dataset.kind.has_features == (option != "swiss_roll")
    assert dataset.horizontal_flip == (option in ("cifar10", "celeba_hq", "lsun_church", "lsun_cat", "photos"))
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_said_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"data=hf needs an extra dependency: pip install 'datasets>=4'"):
        HuggingFace(8, "ylecun/mnist").prepare()
