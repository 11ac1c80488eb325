"""What is counted as a step's time."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch

from ddpm import build
from ddpm.config.compose import compose
from ddpm.training import callbacks


class Trainer(L.Trainer):
    """As much of one as the callbacks ask for."""

    global_step, world_size, accumulate_grad_batches = 0, 1, 1
    fit_loop = SimpleNamespace(_should_accumulate=lambda: False)

    def __init__(self):
        pass


def test_pictures_are_neither_training_nor_waiting(monkeypatch):
    config = compose(["debug=smoke", "loader.batch_size=5"])
    module = build.module(config, build.dataset(config))
    logged = {}
    monkeypatch.setattr(module, "log_now", logged.update)
    clock = iter([0.0, 1.0, 5.0, 5.5, 6.5])  # a step; pictures until 5; waiting until 5.5; a step
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    trainer, throughput, batch = Trainer(), callbacks.Throughput(every=2), torch.zeros(5, 1, 8, 8)
    for step in (1, 2):
        trainer.global_step = step
        throughput.on_train_batch_start(trainer, module)
        throughput.on_train_batch_end(trainer, module, None, batch, 0)
        if step == 1:
            module.on_train_batch_end()
    assert logged["train/images_per_second"] == pytest.approx(2 * 5 / 2.5)
    assert logged["train/data_wait"] == pytest.approx(0.5 / 2.5)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_pictures_are_drawn_in_the_precision_of_the_run(precision, dtype, workspace):
    config = compose(["debug=smoke", f"trainer.precision={precision}"])
    images = build.dataset(config)
    module, found = build.module(config, images), []

    def draw(p, sampler, noise, between):
        found.append(p.network(torch.zeros(1, *images.shape), torch.zeros(1, dtype=torch.long)).dtype)
        return {}

    pictures = callbacks.Pictures(workspace, build.sampler(config), draw, every=1, seed=0)
    trainer = L.Trainer(accelerator="cpu", precision=precision, logger=False, callbacks=[pictures], max_steps=1)
    pictures.draw(trainer, module, step=1)
    assert found == [dtype]
