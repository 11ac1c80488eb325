"""What a notebook imports."""

import copy
import math
import re
import subprocess
import sys
from inspect import unwrap  # of the check of types, where a wrong one is meant
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SMALL
from lightning.pytorch.callbacks import Callback
from random_checkpoint import saved

import ddpm
import ddpm.library
from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation
from ddpm.data import given
from ddpm.data.kind import POINTS
from ddpm.data.pixels import to_unit
from ddpm.diffusion.likelihood import evaluate_bound
from ddpm.diffusion.prediction import X0
from ddpm.diffusion.schedule import linear
from ddpm.diffusion.variance import FixedLarge
from ddpm.runs import folders

SHAPE = (3, 1, 8, 8)


@pytest.fixture(scope="module")
def p(tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "run.ckpt"
    return ddpm.load(saved(file, *SMALL))


def test_importing_the_package_imports_no_torch():
    code = "import sys, ddpm; ddpm.__all__; dir(ddpm); assert not {'torch', 'hydra', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_there():
    assert set(ddpm.__all__) <= set(dir(ddpm))
    assert all(callable(getattr(ddpm, name)) for name in ddpm.__all__ if name != "DROPPED")
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        ddpm.smaple  # noqa: B018


def test_what_was_loaded_is_evaluated_and_not_trained(p):
    assert isinstance(p, ddpm.ReverseProcess)
    assert isinstance(p.q, ddpm.ForwardProcess)
    assert p.q.T == 20
    assert not p.training
    assert not any(parameter.requires_grad for parameter in p.parameters())


def test_samples_are_a_function_of_the_seed(p):
    images = ddpm.sample(p, SHAPE)
    assert images.dtype == torch.uint8
    assert images.shape == SHAPE
    assert torch.equal(images, ddpm.sample(p, SHAPE))
    assert not torch.equal(images, ddpm.sample(p, SHAPE, seed=1))
    assert not torch.equal(images, ddpm.sample(p, SHAPE, ddpm.DDIM(steps=5)))


def test_bits_per_dim_are_the_bound_s(p):
    images = ddpm.sample(p, SHAPE)
    bound = evaluate_bound(p, to_unit(images), torch.Generator().manual_seed(4))
    want = bound.nats / (math.prod(SHAPE[1:]) * math.log(2))
    torch.testing.assert_close(ddpm.bits_per_dim(p, images, seed=4), want)


def test_bits_per_dim_count_every_channel():
    """Of a network that says nothing, on two images of three channels."""
    network = torch.nn.Conv2d(3, 3, 1)
    network.forward = lambda x, t: torch.zeros_like(x)
    p = ddpm.ReverseProcess(network, ddpm.ForwardProcess(linear(5)), X0(), FixedLarge())
    images = torch.randint(0, 256, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    nats = evaluate_bound(p, to_unit(images), torch.Generator().manual_seed(0)).nats
    torch.testing.assert_close(ddpm.bits_per_dim(p, images), nats / (60 * math.log(2)))


def test_bits_per_dim_draw_x_1_as_often_as_an_evaluation_does(tmp_path):
    long = ddpm.load(saved(tmp_path / "run.ckpt", *SMALL, "schedule.T=200"))
    evaluations = []
    long.network.register_forward_hook(lambda *_: evaluations.append(1))
    ddpm.bits_per_dim(long, torch.zeros(SHAPE, dtype=torch.uint8))
    assert len(evaluations) == 199 + 3  # x_1 is drawn 1 + T / 100 times, every other x_t once


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    words = ("sampler.steps=5", "schedule.T=20", "condition=label")
    return ddpm.load(saved(tmp_path_factory.mktemp("run") / "told.ckpt", *words))


def test_samples_of_a_wanted_class(told):
    images = ddpm.sample(told, 3, label=[0, 4, 4])
    assert images.shape == SHAPE
    assert torch.equal(images, ddpm.sample(told, SHAPE, label=[0, 4, 4]))
    given = told.given(ddpm.library.Condition(torch.tensor([0, 4, 4])))
    assert torch.equal(images, ddpm.sample(given, SHAPE))
    same = ddpm.sample(told, 3, label=4)
    assert torch.equal(same[1:], images[1:])
    assert not torch.equal(same[0], images[0])
    assert not torch.equal(ddpm.sample(told, 3, label=ddpm.DROPPED), same)


def test_guidance_of_0_is_none_and_other_weights_lead(told):
    plain = ddpm.sample(told, 3, label=4)
    assert torch.equal(ddpm.sample(told, 3, label=4, guidance=0.0), plain)
    led = ddpm.sample(told, 3, label=4, guidance=2.0)
    assert not torch.equal(led, plain)
    assert torch.equal(led, ddpm.sample(told, 3, label=4, guidance=ddpm.ClassifierFree(2.0)))


def test_a_run_s_samples_are_guided_as_it_says_and_otherwise_where_that_is_said(tmp_path):
    words = ("sampler=ddim", "sampler.steps=5", "schedule.T=20", "condition=label", "condition.drop=0.2")
    (tmp_path / "checkpoints").mkdir()
    saved(tmp_path / "checkpoints" / "last.ckpt", *words, "guidance=cfg", "guidance.scale=2.0")
    run = ddpm.Run(tmp_path)
    led, plain = (ddpm.sample(run.load(), SHAPE, ddpm.DDIM(steps=5), label=4, guidance=scale) for scale in (2.0, 0.0))
    assert not torch.equal(led, plain)
    drawn = [run.samples(3, ddpm.DDIM(steps=5), label=4, **how) for how in ({}, {"guidance": 0.0}, {"seed": 1})]
    assert torch.equal(drawn[0], led)
    assert torch.equal(drawn[1], plain)
    assert not torch.equal(drawn[2], led)
    assert run.results is None  # nothing was measured yet


def test_the_bound_is_that_given_the_label(told):
    images = ddpm.sample(told, 2, label=1)
    assert not torch.equal(ddpm.bits_per_dim(told, images, label=1), ddpm.bits_per_dim(told, images, label=2))


def test_labels_and_guidance_that_cannot_be(p, told):
    for words, said in [
        ({"label": 3}, "knows no classes"),
        ({"guidance": 1.0}, "knows no classes"),
    ]:
        with pytest.raises(ValueError, match=said):
            ddpm.sample(p, 3, **words)
    counts = [([1, 2], r"are \[2\] for 3"), ([1] * 4, r"are \[4\] for 3")]
    for label, said in [(None, "add label=0..9"), (10, "0..9"), (-2, "0..9"), *counts]:
        with pytest.raises(ValueError, match=said):
            ddpm.sample(told, 3, label=label)
    with pytest.raises(ValueError, match="only of a process that"):
        ddpm.sample(ddpm.ReverseProcess(p.network, p.q, p.prediction, p.variance), 3)


SMALL_POINTS = ("debug=smoke", "network.channels=8", "logger=csv")


def test_training_and_evaluating_data_that_are_handed_over(workspace):
    """An array becomes a run that resumes, is evaluated and sampled with the same array, and with no other."""
    images = torch.randint(0, 256, (100, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    steps = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, *_):
            steps.append(trainer.global_step)

    run = ddpm.train(*SMALL, "out=run", dataset=images.numpy(), callbacks=[Watch()])
    assert run.folder == workspace / "run"
    assert steps == [1, 2, 3, 4, 5, 6]
    assert run.config["data"]["shape"] == [1, 8, 8]
    rows = run.metrics if isinstance(run.metrics, list) else run.metrics.to_dict("records")
    assert math.isfinite(next(row["train/loss"] for row in rows if "train/loss" in row))
    results = ddpm.evaluate(run, "evaluation.metrics=[bits_per_dim]", dataset=images)
    assert results.metrics["bits_per_dim"]["n"] == 10  # every tenth
    assert run.results["metrics"]["bits_per_dim"]["value"] == results.metrics["bits_per_dim"]["value"]
    assert run.samples(3).shape == SHAPE
    sampler = ddpm.DPMSolver(steps=5, eta=1.0, spacing="log_snr")
    assert torch.equal(run.samples(3), ddpm.sample(run.load(), SHAPE, sampler))
    with pytest.raises(RequestError, match=r"handed over in Python.* use ddpm\.train"):
        ddpm.evaluate(run, "evaluation.metrics=[bits_per_dim]")
    with pytest.raises(RequestError, match=r"data\.content=.*another run"):
        ddpm.train(*SMALL, "max_steps=8", f"resume={run.folder}", dataset=images.flip(0))


def test_a_model_of_classes_that_are_handed_over(workspace):
    images = torch.randint(0, 256, (90, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = torch.utils.data.TensorDataset(images, torch.arange(90) % 3)
    run = ddpm.train(*SMALL, "condition=label", dataset=data)
    assert run.config["condition"]["classes"] == 3
    assert run.samples(2, label=[0, 2], guidance=1.0).shape == (2, 1, 8, 8)
    results = ddpm.evaluate(run, "evaluation.metrics=[bits_per_dim]", dataset=data)
    assert results.protocol["condition"]["classes"] == 3
    with pytest.raises(RequestError, match="has no classes"):
        ddpm.train(*SMALL, "condition=label", dataset=images)


def test_points_that_are_handed_over(workspace):
    """A model of points gives points as samples, not gray levels, and refuses to call its bound bits."""
    points = np.random.default_rng(0).normal(size=(100, 2))
    run = ddpm.train("recipe=swiss_roll", *SMALL_POINTS, dataset=points)
    p, samples = run.load(), run.samples(5)
    assert (samples.dtype, samples.shape) == (torch.float32, (5, 2))
    assert torch.equal(samples, ddpm.sample(p, 5, run_sampler(run)))
    with pytest.raises(ValueError, match="whose bound is a density"):
        ddpm.bits_per_dim(p, torch.zeros(5, 2, dtype=torch.uint8))
    with pytest.raises(RequestError, match=r"network=unet takes images .* data=given has vectors"):
        ddpm.train(*SMALL, dataset=points)
    with pytest.raises(RequestError, match=r"points must be float \[n, 2\]"):
        ddpm.train("recipe=swiss_roll", dataset=points.repeat(2, axis=1))


def run_sampler(run):
    return build.sampler(compose_evaluation(checkpoint.load(run.folder).config, []))


def test_other_data_do_not_take_the_place_of_a_run_s_results(workspace):
    images = torch.randint(0, 256, (100, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    run = ddpm.train(*SMALL, dataset=images)
    own = ddpm.evaluate(run, "evaluation.metrics=[bits_per_dim]", dataset=images)
    other = ddpm.evaluate(run, "evaluation.metrics=[bits_per_dim]", dataset=255 - images)
    assert run.results["metrics"]["bits_per_dim"]["value"] == own.metrics["bits_per_dim"]["value"]
    assert own.metrics["bits_per_dim"] != other.metrics["bits_per_dim"]


def test_a_program_goes_on_as_it_was_after_a_run(workspace):
    """Its random numbers are its own, and other processes may go on with the run."""
    drawn = []

    class Draw(Callback):
        def on_train_start(self, *_):
            drawn.append(torch.rand(1).item())

    for seed in (3, 4):  # what a callback draws, and the workers of a loader, depends on the run's own seed
        torch.manual_seed(seed)
        run = ddpm.train(*SMALL, "evaluate_after=false", callbacks=Draw())
    assert drawn[0] == drawn[1]
    assert not folders.is_locked(run.folder)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run.load()
    assert torch.equal(torch.rand(3), expected)


SCRIPT = """
import ddpm
print("once")
found = ddpm.multirun("debug=smoke", "logger=csv", "seed=1,2", "network.channels=8", "network.groups=4")
print([run.config["seed"] for run in found])
"""


@pytest.mark.slow
def test_a_script_runs_a_sweep_and_not_itself(workspace):
    (workspace / "script.py").write_text(SCRIPT)
    (workspace / "runs/sweeps/other/000_of_another").mkdir(parents=True)
    printed = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True).stdout
    assert printed.count("once") == 1
    assert printed.splitlines()[-1] == "[1, 2]"


def test_the_runs_of_a_sweep_are_in_their_order_and_those_alone_that_began(workspace, monkeypatch):
    for k in (10, 2, 11, 0, 1):
        folder = workspace / "sweep" / f"{k:03d}_seed={k}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
    (workspace / "sweep" / "012_seed=12").mkdir()
    asked = []
    monkeypatch.setattr(ddpm.library.sweep, "carry_out", lambda words, work: asked.append(words) or Path("sweep"))
    found = ddpm.multirun("seed=0,1,2,10,11,12")
    assert [run.folder for run in found] == [workspace / "sweep" / f"{k:03d}_seed={k}" for k in (0, 1, 2, 10, 11)]
    assert asked == [["seed=0,1,2,10,11,12"]]


@pytest.mark.parametrize(
    "label", [1, np.int64(1), torch.tensor(1), np.array([1, 1]), torch.tensor([1, 1], dtype=torch.uint8)]
)
def test_a_label_may_be_any_whole_number(told, label):
    assert torch.equal(ddpm.sample(told, 2, label=label), ddpm.sample(told, np.int64(2), label=[1, 1]))


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 8, 8), (2, 1, 8), (), -1, (-1, 1, 8, 8)])
def test_a_shape_is_that_of_the_model_s_examples(p, shape):
    with pytest.raises(ValueError, match=r"^shape="):
        ddpm.sample(p, shape)


def test_a_shape_may_be_of_any_whole_numbers(p):
    wanted = ddpm.sample(p, SHAPE)
    for shape in (SHAPE[0], np.int64(SHAPE[0]), torch.tensor(SHAPE), np.array(SHAPE), list(SHAPE)):
        assert torch.equal(ddpm.sample(p, shape), wanted)


def test_the_bound_is_of_images_of_the_model_s_shape(p):
    with pytest.raises(ValueError, match=r"shape=\[2, 1, 4, 4\]: examples of this model are \[n, 1, 8, 8\]"):
        ddpm.bits_per_dim(p, torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


def test_a_model_that_was_always_told_a_class_is_not_led_by_what_it_never_learned(tmp_path):
    words = ("sampler.steps=5", "schedule.T=20", "condition=label", "condition.drop=0.0")
    always = ddpm.load(saved(tmp_path / "always.ckpt", *words))
    with pytest.raises(ValueError, match="never trained without its condition"):
        ddpm.sample(always, 2, label=3, guidance=1.0)
    for label in (ddpm.DROPPED, [3, ddpm.DROPPED]):
        with pytest.raises(ValueError, match="always told a class"):
            ddpm.sample(always, 2, label=label)
    with pytest.raises(ValueError, match=r"add label=0\.\.9$"):
        ddpm.sample(always, 2)
    weak = ddpm.load(saved(tmp_path / "weak.ckpt", *words, gain=2.0))
    led = ddpm.sample(always, 2, label=3, guidance=ddpm.AutoGuidance(weak, 1.0))
    assert not torch.equal(led, ddpm.sample(always, 2, label=3))


def test_a_network_that_is_told_an_image(tmp_path):
    words = ("sampler.steps=5", "schedule.T=20", "condition=image", "condition.factor=2", "condition.drop=0.1")
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    p = ddpm.load(saved(folder / "checkpoints/last.ckpt", *words))
    for ask in (lambda: ddpm.sample(p, 2), lambda: ddpm.bits_per_dim(p, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))):
        with pytest.raises(ValueError, match=r"told an image of each example: give it one"):
            ask()
    config = compose_evaluation(checkpoint.load(folder).config, [])
    shown = build.conditioning(config).shown(build.dataset(config), 2)
    drawn = ddpm.sample(p.given(ddpm.Condition(image=shown.image)), 2, build.sampler(config))
    assert torch.equal(ddpm.Run(folder).samples(2), drawn)
    assert ddpm.Run(str(folder)) == ddpm.Run(folder)
    assert not torch.equal(ddpm.Run(folder).samples(2, guidance=2.0), drawn)


@pytest.mark.parametrize("label", [torch.tensor([[1], [2], [3]]), [], np.array([0, 1, 2**64 - 1], np.uint64)])
def test_what_is_no_label_is_said_in_a_line(told, label):
    with pytest.raises(ValueError, match=r"^label"):
        ddpm.sample(told, 3, label=label)


@pytest.mark.parametrize("callbacks", ["mine", [Callback]])
def test_what_is_no_callback_is_refused_before_anything_is_made(callbacks, workspace):
    with pytest.raises(RequestError, match="is no callback of Lightning's"):
        unwrap(ddpm.train)("debug=smoke", callbacks=callbacks)
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("label", [True, torch.tensor([1.0, 1.0]), torch.tensor([1j, 1j])])
def test_a_label_is_a_whole_number(told, label):
    with pytest.raises(ValueError, match="classes are whole numbers"):
        ddpm.sample(told, 2, label=label)


def test_images_are_bytes(p):
    images = ddpm.sample(p, SHAPE)
    assert torch.equal(ddpm.bits_per_dim(p, images.numpy()), ddpm.bits_per_dim(p, images))
    for wrong in (images.float() / 255, images[0], images.int()):
        with pytest.raises(ValueError, match=r"give torch\.uint8 \[n, channels, height, width\]"):
            ddpm.bits_per_dim(p, wrong)


def test_a_pytorch_dataset_is_taken_with_or_without_labels(capsys):
    images = torch.arange(40 * 4, dtype=torch.uint8).reshape(40, 1, 2, 2)
    plain = given.of(images)
    labelled = given.of(torch.utils.data.TensorDataset(images, torch.arange(40) % 7))
    assert len({each.fingerprint for each in (labelled, plain, given.of((images, images[:9])))}) == 3
    assert (labelled.num_classes, plain.num_classes) == (7, 0)
    assert torch.equal(labelled.split("test").labels, torch.arange(40)[9::10] % 7)
    assert plain.split("test").labels is None
    for no_class, shown in ((0.5, "0.5"), (-1, "-1"), ("cat", "cat"), ([1, 2], "int64 [2]"), (10**10, "10000000000")):
        for where in (range(40), [7]):
            items = [(image.numpy(), no_class if k in where else 3) for k, image in enumerate(images)]
            assert given.of(items).num_classes == 0
            said = capsys.readouterr().err
            assert "is left out: classes are whole numbers 0..K-1, with K at most 1,000,000" in said
            assert f"that of example {where[0]} is {shown}" in said
    with pytest.raises(ValueError, match="only some of the examples have a class"):
        given.of((torch.utils.data.TensorDataset(images, torch.arange(40) % 7), images[:9]))
    assert torch.equal(plain.split("test").values, images[9::10])
    assert len(plain.split("train")) == 36
    for dtype in (torch.float64, torch.float32, torch.float16):
        points = given.of(torch.rand(20, 2, dtype=dtype))
        assert (points.kind, points.split("test").values.dtype) == (POINTS, torch.float32)


@pytest.mark.parametrize("label", [-1, 10**10])
def test_labels_of_parts_are_classes(label):
    part = given.Part(torch.zeros(40, 1, 2, 2, dtype=torch.uint8), torch.tensor([0] * 39 + [label]))
    with pytest.raises(ValueError, match=rf"the test labels hold {label}: classes are whole numbers 0\.\.K-1"):
        given.Array(part)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(40, 1, 8, 8, dtype=torch.uint8))

    def __len__(self) -> int:
        return 40


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), "a Stream cannot be asked for an example by its number: give"),
        (torch.rand(9, 3, 8, 8), r"images must be torch\.uint8"),
        (torch.zeros(9, 8, 8, dtype=torch.uint8), r"images must be torch\.uint8"),
        (torch.zeros(10, 1, 8, 8, dtype=torch.uint8), "1 test examples: at least 2"),
        (np.zeros((40, 8, 8, 3), np.uint8), "with channels last as it seems: put them first"),
        ("pictures", "a str is no data"),
        (np.array([[None]]), "an array of object is no data"),
        (np.full((40, 2), np.nan), "the train examples hold numbers that are not finite"),
        (7, "a int is no data"),
        ([np.zeros((1, 8, 8), np.uint8), np.zeros((1, 4, 4), np.uint8)], "of one shape"),
    ],
)
def test_data_that_are_none(data, message, workspace):
    with pytest.raises(RequestError, match=message):
        ddpm.train(*SMALL, dataset=data)
    for words in ("data=folder", "++data.size=8"):
        with pytest.raises(RequestError, match=re.escape(f"{words} beside dataset=")):
            ddpm.train(words, dataset=torch.zeros(40, 1, 8, 8, dtype=torch.uint8))
    assert not list(workspace.iterdir())


@pytest.mark.parametrize("written", [None, "not a checkpoint"])
def test_what_is_wrong_with_a_checkpoint_is_one_kind_of_error(written, workspace):
    """Whether it is missing or damaged: as from `train` and `evaluate`."""
    if written:
        (workspace / "model.ckpt").write_text(written)
    with pytest.raises(RequestError, match=r"model\.ckpt"):
        ddpm.load("model.ckpt")


NO_SEEDS = ["x", 1.5, None, 2**64, [1], torch.tensor([1, 2])]


@pytest.mark.parametrize("seed", NO_SEEDS)
def test_what_is_no_seed_is_said(p, seed):
    for ask in (unwrap(ddpm.sample), unwrap(ddpm.bits_per_dim)):
        what = SHAPE if ask is unwrap(ddpm.sample) else torch.zeros(SHAPE, dtype=torch.uint8)
        with pytest.raises(ValueError, match=r"^seed=.*: give a whole number of at most 64 bits"):
            ask(p, what, seed=seed)


def test_a_seed_may_be_of_any_whole_numbers(p):
    wanted = ddpm.sample(p, 2, ddpm.DDIM(steps=2), seed=3)
    for seed in (np.int64(3), torch.tensor(3)):
        assert torch.equal(unwrap(ddpm.sample)(p, 2, ddpm.DDIM(steps=2), seed), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_not_float32_are_answered_with_what_to_do(p, dtype):
    narrow = copy.deepcopy(p).to(dtype)
    for ask in (
        lambda: ddpm.sample(narrow, 2, ddpm.DDIM(steps=2)),
        lambda: ddpm.bits_per_dim(narrow, torch.zeros(SHAPE, dtype=torch.uint8)),
    ):
        with pytest.raises(ValueError, match=rf"weights are {dtype}, .* is torch\.float32: p\.float\(\) makes them so"):
            ask()
    with torch.autocast("cpu"):
        assert ddpm.sample(p, 2, ddpm.DDIM(steps=2)).shape == (2, 1, 8, 8)


def test_another_error_of_a_network_stays_what_it_is(p):
    broken = copy.deepcopy(p)
    broken.network.forward = lambda *_: torch.zeros(1) @ torch.zeros(2)
    with pytest.raises(RuntimeError):
        ddpm.sample(broken, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"p": ddpm.Run("run")}, "a Run is no process: give what"),
        ({"sampler": "ddim"}, r"sampler='ddim': give a sampler, as ddpm\.DDIM"),
        ({"sampler": ddpm.DDIM}, "give a sampler"),
        ({"sampler": 0}, "give a sampler"),
        ({"guidance": "strong"}, "guidance='strong': give a weight"),
        ({"guidance": None}, "guidance=None: give a weight"),
    ],
)
def test_what_cannot_be_sampled_with_is_said(p, wrong, message):
    with pytest.raises(ValueError, match=message):
        unwrap(ddpm.sample)(**{"p": p, "shape": 2, **wrong})


def test_images_that_are_none(p):
    for wrong in (None, "pictures", np.full((1, 1, 8, 8), None)):
        with pytest.raises(ValueError, match=r"is no images: give torch\.uint8"):
            unwrap(ddpm.bits_per_dim)(p, wrong)
    with pytest.raises(ValueError, match="a str is no process"):
        unwrap(ddpm.bits_per_dim)("run", torch.zeros(SHAPE, dtype=torch.uint8))


def test_settings_and_checkpoints_are_texts(workspace):
    for call in (ddpm.train, ddpm.multirun, lambda *words: unwrap(ddpm.load)("run", *words)):
        for strange in (["max_steps=5"], 5, None):
            with pytest.raises(RequestError, match="is no setting: each is a text of its own"):
                unwrap(call)(strange)
    for call in (ddpm.load, ddpm.evaluate):
        for strange in (None, 5):
            with pytest.raises(RequestError, match="is no checkpoint: give a run, its folder, or a file"):
                unwrap(call)(strange)
    assert list(workspace.iterdir()) == []


def test_a_run_stands_for_its_folder(run_folder):
    run = ddpm.Run(run_folder)
    images = run.samples(2)
    assert torch.equal(images, run.samples((2, 1, 8, 8)))
    assert torch.equal(ddpm.load(run).network.conv_in.weight, run.load().network.conv_in.weight)
    for n in ("x", -1, (2, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"^shape="):
            unwrap(ddpm.Run.samples)(run, n)
    with pytest.raises(RequestError, match="nothing does not exist"):
        ddpm.Run("nothing").samples()
