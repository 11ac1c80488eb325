import gc
import os
import shutil
from pathlib import Path

gc.disable()  # until all is imported, which makes no garbage: to look for some took a tenth of the collection's time

import commands  # noqa: E402
import composition  # noqa: E402
import pytest  # noqa: E402
import shapes  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

os.environ.setdefault("WANDB_MODE", "offline")

# Tensors are small in the tests, in this process and in those that it starts: threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

settings.register_profile("ddpm", deadline=None, max_examples=25)  # the same, whichever folder is run
settings.load_profile("ddpm")

composition.remember()

LONG = (
    "training/test_resume.py",
    "test_placement.py",
    "evaluation/test_evaluation.py",
    "test_bad_input.py",
    "figures/test_figures.py",
    "test_readme.py",
    "sweep/test_sweep.py",
    "test_library.py",
    "test_main_path.py",
    "diffusion/test_sampler.py",
    "config/test_trust.py",
    "own_pictures/test_propose.py",
    "checkpoints/test_export.py",
    "checkpoints/test_converters.py",
    "config/test_conf.py",
    "loggers/test_loggers.py",
    "checkpoints/test_crafted.py",
    "training/test_module.py",
    "training/test_init.py",
    "sweep/test_engines.py",
    "training/test_posthoc.py",
)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers():
    """There is one more worker than there are cores: tests also wait, for the processes that they have started."""
    return (yield) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """All workers have one server of processes."""
    node.workerinput["server"] = commands.server()


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        commands.share(config.workerinput["server"])


def pytest_collection_modifyitems(config, items):
    """Among workers, the files that take minutes come first: else one is left alone with them at the end."""
    if not hasattr(config, "workerinput"):
        return
    order = {str(Path(__file__).parent / file): place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: order.get(str(item.path), len(LONG)))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what was imported is no garbage, and takes most of the time of looking for some
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()  # some libraries complain of what is left at the end


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    shapes.check_anew()


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty current directory: runs/ is made under it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A run folder of six steps of a small network, written by this user."""
    from ddpm.commands.train import train

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train([*commands.EXTENSIBLE, "out=run"])
    return folder / "run"


@pytest.fixture
def run_folder(trained_run, workspace):
    """A copy of it, `run` in the current directory."""
    shutil.copytree(trained_run, workspace / "run")
    return workspace / "run"
