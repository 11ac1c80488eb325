"""Pictures of a training are drawn when they are due, and from the averaged weights."""

from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from commands import SMALL
from PIL import Image, ImageSequence

from ddpm import build
from ddpm.commands.train import train
from ddpm.config.compose import compose
from ddpm.data.dataset import InMemory, Resident
from ddpm.diffusion.guidance import Guided
from ddpm.figures.display import ImageDisplay, display_of
from ddpm.figures.drawing import grid, titled
from ddpm.randomness import generator
from ddpm.training.pictures import SamplePictures, film_of


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_pictures_are_drawn_in_the_precision_of_the_run(precision, dtype, workspace):
    config = compose(["debug=smoke", f"trainer.precision={precision}"])
    images = build.dataset(config)
    module, data, found = build.module(config, images), build.data_module(config, images), []

    def draw(p, sampler, noise, between, images, told):
        found.append(p.network(torch.zeros(1, *images.shape), torch.zeros(1, dtype=torch.long)).dtype)
        return {}

    pictures = SamplePictures(workspace, build.sampler(config), data, draw, every=1, seed=0)
    trainer = L.Trainer(accelerator="cpu", precision=precision, logger=False, callbacks=[pictures], max_steps=1)
    pictures.draw(trainer, module, step=1)
    assert found == [dtype]


def test_pictures_are_of_the_averaged_weights_from_the_same_noise_at_every_step_due(workspace):
    config = compose(["debug=smoke", "max_steps=7"])
    images = build.dataset(config)
    module, data, drawn, between = build.module(config, images), build.data_module(config, images), {}, []

    def draw(p, sampler, noise, asks, images, told):
        asks()
        drawn[step] = p, sampler, torch.rand(3, generator=noise).tolist()
        return {}

    sampler = build.sampler(config)
    pictures = SamplePictures(workspace, sampler, data, draw, every=3, seed=5, between=between.append)
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[pictures], max_steps=7)
    for step in range(1, 8):
        pictures.draw(trainer, module, step)
    assert list(drawn) == [3, 6, 7]
    assert between == [trainer] * 3
    for p, by, noise in drawn.values():
        assert (p, by, noise) == (module.p_ema, sampler, drawn[3][2])


def test_a_run_s_pictures_are_guided_as_its_samples_and_begin_with_the_evaluation_s_noise(workspace, monkeypatch):
    drawn = []

    def draw(display, p, sampler, noise, *_):
        drawn.append((p.network, torch.rand(3, generator=noise).tolist()))
        return {}

    monkeypatch.setattr(ImageDisplay, "during_training", draw)
    told = ["condition=label", "condition.drop=0.3", "guidance=cfg", "guidance.scale=2.0"]
    train([*SMALL, *told, "seed=3", "evaluation.seed=5", "max_steps=2", "out=run"])
    ((network, noise),) = drawn
    assert (type(network), network.scale) == (Guided, 2.0)
    assert noise == torch.rand(3, generator=generator(torch.device("cpu"), 5)).tolist()


def test_a_run_keeps_a_sheet_of_its_data_and_a_film_of_its_samples(workspace):
    run = train([*SMALL, "every.samples=2", "out=run"])
    digits = build.dataset(compose([])).split("train")
    shown = [k * (len(digits) // 64) for k in range(64)]
    with Image.open(run / "data.png") as sheet:
        assert np.array_equal(sheet, grid(digits.__getitems__(shown), 8))
    stills = sorted((run / "samples").iterdir())
    assert [still.name for still in stills] == [f"step_{step:07d}.png" for step in (2, 4, 6)]
    with Image.open(run / "training.gif") as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        assert film.info["duration"] == 2000
    assert len(frames) == 3
    for frame, still in zip(frames, stills, strict=True):
        with Image.open(still) as picture:
            samples = np.asarray(frame)[: picture.height].astype(int)
            assert np.abs(samples - np.asarray(picture.convert("RGB"))).mean() < 4  # 64 colours
    words = [np.asarray(frame)[picture.height :] for frame in frames]
    assert not np.array_equal(words[0], words[1])


def test_a_run_that_goes_on_from_earlier_forgets_the_pictures_of_later_steps(workspace):
    config = compose(["debug=smoke"])
    images = build.dataset(config)
    module, data = build.module(config, images), build.data_module(config, images)
    pictures = SamplePictures(workspace, build.sampler(config), data, lambda *_: {}, every=1, seed=0, sheet=None)
    for name in ("samples/step_0000007.png", "samples/step_0000008.png", "progressive/step_0000008.png", "step_9.png"):
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).touch()
    pictures.on_train_start(SimpleNamespace(is_global_zero=True, global_step=7, loggers=[]), module)
    assert sorted(str(file.relative_to(workspace)) for file in workspace.rglob("*.png")) == [
        "samples/step_0000007.png",
        "step_9.png",
    ]


def test_each_of_many_pictures_can_be_seen_in_a_film(workspace):
    for step in range(300):
        Image.new("RGB", (9, 9)).save(f"step_{step:07d}.png")
    film = film_of(sorted(workspace.iterdir()))
    assert len(film.frames) == 100
    last = titled(Image.new("RGB", (9, 9)), "step 299")
    assert np.array_equal(film.frames[-1], last)
    assert film.milliseconds == 80  # each can still be seen


def test_a_film_is_of_the_run_s_pictures_alone(workspace):
    config = compose(["debug=smoke"])
    images = build.dataset(config)
    module, data = build.module(config, images), build.data_module(config, images)
    pictures = SamplePictures(workspace, build.sampler(config), data, lambda *_: {}, every=1, seed=0, sheet=None)
    (workspace / "samples").mkdir()
    for name, colour in (("step_0000001.png", "red"), ("step_0000002.png", "blue"), ("step_best.png", "white")):
        Image.new("RGB", (9, 9), colour).save(workspace / "samples" / name)
    pictures.on_train_end(SimpleNamespace(is_global_zero=True, should_stop=False, global_step=2, loggers=[]), module)
    with Image.open(workspace / "training.gif") as film:
        assert film.n_frames == 2


class OnDevice(torch.Tensor):
    """A tensor that, like one in a GPU's memory, becomes an array only by way of `cpu`."""

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("data", ["digits", "swiss_roll"])
def test_a_sheet_is_made_of_data_in_a_gpu_s_memory(data):
    images = build.dataset(compose(["recipe=swiss_roll"] if data == "swiss_roll" else []))
    held = InMemory(images.split("train").values[:100])
    resident = Resident(held, torch.device("cpu"))
    resident.values = held.values.as_subclass(OnDevice)
    sheet = display_of(images).sheet
    assert np.array_equal(sheet(resident), sheet(held))
