"""What is counted as a step's time."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch

from ddpm import build
from ddpm.config.compose import compose
from ddpm.data.conditioning import ConditionedBatch
from ddpm.data.dataset import InMemory
from ddpm.data.module import DataModule
from ddpm.progress import Bar
from ddpm.training import callbacks
from ddpm.training.bound import EstimatedBound, MeanBound
from ddpm.training.memorisation import Memorisation
from ddpm.training.monitor import held_out_bound_name


class Trainer(L.Trainer):
    """As much of one as the callbacks ask for."""

    global_step, world_size, accumulate_grad_batches, datamodule = 0, 1, 1, None
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
    batch = ConditionedBatch(torch.zeros(2, 1, 8, 8), None)
    trainer, throughput = Trainer(), callbacks.Throughput(every=2)
    trainer.world_size = 3  # this process has 2 of the 5
    for step in (1, 2):
        trainer.global_step = step
        throughput.on_train_batch_start(trainer, module)
        throughput.on_train_batch_end(trainer, module, None, batch, 0)
        if step == 1:
            module.on_train_batch_end()
    assert logged["train/images_per_second"] == pytest.approx(2 * 5 / 2.5)
    assert logged["train/data_wait"] == pytest.approx(0.5 / 2.5)


def test_validating_is_not_waiting(monkeypatch):
    config = compose(["debug=smoke", "loader.batch_size=5"])
    module, logged = build.module(config, build.dataset(config)), {}
    monkeypatch.setattr(module, "log_now", logged.update)
    clock = iter([0.0, 1.0, 1.0, 9.0, 10.0])  # a step; a validation until 9; a step
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    trainer, throughput = Trainer(), callbacks.Throughput(every=2)
    for step in (1, 2):
        trainer.global_step = step
        throughput.on_train_batch_start(trainer, module)
        throughput.on_train_batch_end(trainer, module, None, ConditionedBatch(torch.zeros(5, 1, 8, 8), None), 0)
        if step == 1:
            module.on_train_batch_end()
            throughput.on_validation_end(trainer, module)
    assert logged["train/data_wait"] == 0
    assert logged["train/images_per_second"] == pytest.approx(2 * 5 / 2)


def test_images_per_second_are_told_once_a_step_and_are_those_since_they_were_told(monkeypatch):
    """Steps of two micro-batches each, which take one second in the first and four in the second."""
    config = compose(["debug=smoke", "loader.batch_size=5"])
    module, trainer, throughput = build.module(config, build.dataset(config)), Trainer(), callbacks.Throughput(every=1)
    logged, now = [], [0.0]
    monkeypatch.setattr(module, "log_now", logged.append)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    trainer.accumulate_grad_batches = 2
    for trainer.global_step, first_of_two, seconds in (
        (0, True, 1.0),
        (1, False, 1.0),
        (1, True, 4.0),
        (2, False, 4.0),
    ):
        trainer.fit_loop = SimpleNamespace(_should_accumulate=lambda: first_of_two)  # noqa: B023
        throughput.on_train_batch_start(trainer, module)
        now[0] += seconds
        throughput.on_train_batch_end(trainer, module, None, ConditionedBatch(torch.zeros(3, 1, 8, 8), None), 0)
        module.on_train_batch_end()
    assert [each["train/images_per_second"] for each in logged] == pytest.approx([5 / 2, 5 / 8])


def waiting(monkeypatch, *shares):
    """Steps of a run of which, by turns, such shares of the time go by until the next batch is there."""
    config = compose(["debug=smoke"])
    images = build.dataset(config)
    module, trainer, throughput = build.module(config, images), Trainer(), callbacks.Throughput(every=2)
    trainer.datamodule = build.data_module(config, images)
    monkeypatch.setattr(module, "log_now", lambda metrics: None)
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    for trainer.global_step, share in enumerate(shares, start=1):
        now[0] += share / (1 - share)
        throughput.on_train_batch_start(trainer, module)
        now[0] += 1.0
        throughput.on_train_batch_end(trainer, module, None, ConditionedBatch(torch.zeros(5, 1, 8, 8), None), 0)
        module.on_train_batch_end()


def test_who_waits_for_data_is_advised_once_and_not_while_workers_start(monkeypatch, capsys):
    waiting(monkeypatch, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("warning: 50% of the training time is waiting for data: ")
    assert "data.root=FOLDER" in line  # what helps where examples lie in an array


@pytest.mark.parametrize("shares", [(0.9, 0.9), (0.9, 0.9, 0.15, 0.15), (0.9, 0.9, 0.0, 0.0, 0.1, 0.1)])
def test_who_hardly_waits_is_not_advised(shares, monkeypatch, capsys):
    waiting(monkeypatch, *shares)
    assert capsys.readouterr().err == ""


def test_advice_for_pictures_that_are_decoded_as_they_are_needed():
    class Streamed(InMemory):
        in_memory = False

    data = DataModule(build.dataset(compose([])), 4, 0, 1, num_workers=3)
    data.train = Streamed(torch.zeros(2**24, 1, dtype=torch.uint8).expand(-1, 64))  # of 1 x 8 x 8: a GiB
    assert "loader.num_workers (now 3;" in data.advice
    assert data.advice.endswith("data.array_gib=1")
    data.train.values = data.train.values[:1].expand(2**24 + 1, -1)
    assert data.advice.endswith("data.array_gib=2")


def test_the_bar_counts_whole_steps_on_from_where_a_run_goes_on(monkeypatch):
    """A micro-batch after which the weights are as before moves nothing; ranks above 0 count in silence."""
    made, shown, ended = [], [], []

    class Shown(Bar):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            made.append((arguments, more))

        def advance(self, steps=1, note=None):
            super().advance(steps, note)
            shown.append((self.done, note))

        def __exit__(self, *error):
            super().__exit__(*error)
            ended.append(self.done)

    monkeypatch.setattr(callbacks, "Bar", Shown)
    config = compose(["debug=smoke"])
    module, bar = build.module(config, build.dataset(config)), callbacks.TrainingBar()
    trainer = SimpleNamespace(max_steps=9, is_global_zero=False, global_step=4)
    bar.on_train_start(trainer, module)
    rate = {"train/images_per_second": 80.4}
    for trainer.global_step, module.latest in (
        (4, {}),
        (5, {"train/loss": 0.25}),
        (5, rate),
        (7, {"train/loss": 1} | rate),
    ):
        bar.on_train_batch_end(trainer, module)
    assert made == [(("training", 9), {"enabled": False, "start": 4})]
    assert shown == [(5, "loss 0.2500"), (7, "loss 1.0000  80 images/s")]
    bar.on_exception(trainer, module, KeyboardInterrupt())
    assert ended == [7]


def test_who_learns_training_images_by_heart_is_warned_once(monkeypatch, capsys):
    config = compose(["debug=smoke"])
    images = build.dataset(config)
    module, trainer, said = build.module(config, images), Trainer(), []
    trainer.datamodule, name = build.data_module(config, images), held_out_bound_name(config.schedule.T)
    monkeypatch.setattr(module, "log_now", lambda metrics, step: None)
    monkeypatch.setattr(EstimatedBound, "over", lambda self, batches, trainer, between: said.append(self.p))
    training = iter([8.0, 5.0, 4.5, 4.0, 3.5])
    monkeypatch.setattr(EstimatedBound, "compute", lambda self, sum_over_processes: MeanBound(next(training), []))
    watches, warned = Memorisation(lambda trainer: None), []
    for step, held_out in enumerate([8.0, 6.0, 6.5, 7.0, 7.5]):
        module.validated = {name: held_out}
        watches.after_validation(trainer, module, step)
        warned.append(capsys.readouterr().err)
    assert [bool(each) for each in warned] == [False, False, False, True, False]
    assert "by heart: from step 1 to 3 the bound of held-out images rose from 6.000 to 7.000 bits/dim" in warned[3]
    assert "fell from 5.000 to 4.000; the best weights so far" in warned[3]
    assert said == [module.p_ema] * 5
