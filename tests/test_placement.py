"""Everything that a GPU would compute has its tensors there, shown without one (`fake_gpu.py`)."""

from types import SimpleNamespace

import fake_gpu
import pytest
import torch
from commands import ROOT
from fake_gpu import DEVICE

import ddpm
from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.config.compose import compose
from ddpm.config.groups import options_of
from ddpm.data.dataset import Resident
from ddpm.diffusion.wide import with_float64
from ddpm.figures.display import display_of
from ddpm.launch import Rank

SMALL = [
    "schedule.T=10",
    "network.channels=8",
    "loader.batch_size=8",
    "every.log=1",
    "evaluation.num_samples=30",
    "evaluation.chunk=20",
    "evaluation.bits_per_dim.images=30",
    "evaluation.kid={subsets: 2, subset_size: 20}",
]
DIGITS = [*SMALL, "network.groups=4", "sampler.steps=4"]
POINTS = [*SMALL, "recipe=swiss_roll", "sampler.steps=4"]


@pytest.fixture
def device(request, monkeypatch):
    """A GPU like NVIDIA's, or by `narrow` one like Apple's."""
    with fake_gpu.pretended(monkeypatch, float64=getattr(request, "param", "wide") != "narrow"):
        yield DEVICE


narrow = pytest.mark.parametrize("device", ["narrow"], indirect=True)
both = pytest.mark.parametrize("device", ["wide", "narrow"], indirect=True)


@both
def test_tensors_of_two_devices_do_not_meet(device):
    there, here = torch.ones(3, device=device), torch.ones(3)
    assert there.device == (there + 1).device == there.to(torch.float16).device == device
    assert there.cpu().device == here.device
    for meet in (lambda: there + here, lambda: here[there.long()], lambda: torch.cat([here, there])):
        with pytest.raises(RuntimeError, match="elsewhere"):
            meet()


@narrow
def test_some_devices_have_no_float64(device):
    there = torch.ones(3, device=device)
    assert with_float64(device).type == "cpu"
    for make in (
        lambda: there.double(),
        lambda: there.to("cpu", torch.float64),
        lambda: torch.ones(3, dtype=torch.float64).to(device),
        lambda: torch.zeros(3, dtype=torch.float64, device=device),
    ):
        with pytest.raises(TypeError, match="no float64"):
            make()
    assert there.cpu().double().dtype == torch.float64


def trained(config, images):
    """Two steps without a backward pass, and a validation."""
    module = build.module(config, images).to(DEVICE)
    module.horizontal_flip = len(images.shape) == 3
    trainer = module._trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        global_step=3,
        max_steps=10,
        accumulate_grad_batches=1,
        precision_plugin=SimpleNamespace(scaler=None),
        strategy=SimpleNamespace(reduce=lambda sums, reduce_op: sums),
        loggers=[],
        default_root_dir=".",
    )
    optimizer = module.configure_optimizers()["optimizer"]
    trainer.optimizers = [optimizer]
    batch = build.conditioning(config).batch(Resident(images.split("train"), DEVICE), range(8))
    for _ in range(2):
        assert module.training_step(batch, 0).device == batch.values.device == DEVICE
        for weights in module.p.parameters():
            weights.grad = torch.full_like(weights, 1e-3)
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        module._average(module._averages, module._weights, None)
        trainer.global_step += 1
    module.require_finite_now()
    module.on_train_start()
    module.eval()
    with torch.no_grad():
        module.validation_step((0, batch), 0)
        module.on_validation_epoch_end()
    assert module.latest.keys() >= {"train/loss", "train/gradient_norm"}
    return module


@pytest.mark.parametrize(
    "words",
    [
        DIGITS,
        POINTS,
        [*DIGITS, "timesteps=loss_second_moment"],
        [*DIGITS, "condition=label"],
        [*DIGITS, "condition=image"],
        [*DIGITS, "prediction=v", "variance=learned_range", "objective=hybrid"],
        pytest.param([*DIGITS, "prediction=mu", "variance=learned", "objective=vlb"], marks=pytest.mark.slow),
        [*DIGITS, "prediction=x0", "variance=fixed_small", "weighting=min_snr"],
    ],
)
def test_training(device, words):
    config = compose(words)
    trained(config, build.dataset(config))


@narrow
@pytest.mark.parametrize("words", [[*DIGITS, "timesteps=loss_second_moment"], POINTS])
def test_training_without_float64(device, words):
    config = compose(words)
    trained(config, build.dataset(config))


@both
def test_pictures_and_the_library(device):
    for sampler in (
        "ancestral",
        "ddim",
        "dpm_solver_sde",
        "dpm_solver_2s",
        "unipc",
        "deis sampler.order=2",
        "heun",
        "sa_solver",
    ):
        config = compose([*DIGITS, *f"sampler={sampler}".split()])
        images = build.dataset(config)
        p, draw = build.reverse_process(config, images).to(device).eval(), torch.Generator(device).manual_seed(0)
        drawn_by = build.sampler(config)
        with torch.no_grad():
            display_of(images).during_training(p, drawn_by, draw, lambda: None, images, lambda count: None)
            assert ddpm.sample(p, (2, *images.shape), drawn_by).device == device
    assert ddpm.bits_per_dim(p, torch.zeros(2, *images.shape, dtype=torch.uint8)).device == device


@pytest.mark.parametrize(
    "words",
    [
        [*DIGITS, "evaluation.metrics=[inception_score,fid,kid,precision_recall]", "evaluation.fid_split=both"],
        [*DIGITS, "evaluation.metrics=[bits_per_dim]"],
        [*DIGITS, "condition=label"],
        [*DIGITS, "evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.evaluations=10"],
        POINTS,
    ],
)
def test_evaluation(device, workspace, words):
    evaluated(words, device, workspace)


@narrow
@pytest.mark.parametrize(
    "words",
    [
        [*DIGITS, "evaluation.metrics=[inception_score,fid,kid,precision_recall]", "condition=label"],
        [*DIGITS, "evaluation.metrics=[bits_per_dim]", "evaluation.bits_per_dim.evaluations=10"],
    ],
)
def test_evaluation_without_float64(device, workspace, words):
    evaluated(words, device, workspace)


def evaluated(words, device, workspace):
    config = compose(words)
    images = build.dataset(config)
    p = build.reverse_process(config, images).requires_grad_(False).eval()
    results = build.evaluation(config, images).run(p, Rank(0, 1, device), {}, workspace / "out")
    assert all(torch.tensor(metric["value"]).isfinite() for metric in results.metrics.values())


OF_PAIRS = {"restored"}
SUMMED = {"guidance_curve", "rate_distortion", "nearest_neighbours"}  # what sums in float64
FIGURES = [("wide", "label", None), ("wide", "image", OF_PAIRS), ("narrow", "label", SUMMED)]


@pytest.mark.parametrize(("device", "told", "names"), FIGURES, indirect=["device"])
def test_figures(device, workspace, told, names):
    names = names or {*options_of("figure")} - OF_PAIRS
    few = ["samples.count=7", "rate_distortion.count=3", "loss_by_t.count=3", "film={count: 2, frames: 4}"]
    few += ["guidance={labels: [3], scales: [0.0, 1.0]}", "guidance_curve={count: 20, scales: [0.0, 1.0]}"]
    few += [
        "inpaint={images: [0], samples: 2, resamplings: 2}",
        "interpolation.lambdas=3",
        "nearest_neighbours.count=2",
    ]
    asked = [f"figures=[{','.join(names)}]", *DIGITS, "network.channel_mult=[1]", f"condition={told}"]
    config = compose([*asked, *(f"figure.{each}" for each in few)], "evaluate")
    images = build.dataset(config)
    p = build.reverse_process(config, images).requires_grad_(False).eval()
    build.figures(config, images, checkpoint.Checkpoint(ROOT, {}, {}, 6), p).draw(workspace / "out", device)
    assert {path.stem for path in (workspace / "out").iterdir()} == names
