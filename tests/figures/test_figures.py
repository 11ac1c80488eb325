"""Figures: each on a small random model, what they show held against its definition, and what is refused."""

import errno
import inspect
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import ROOT, SMALL, Fork
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from peer_networks import randomise
from PIL import Image
from scipy.linalg import sqrtm

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.config import groups
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.saved import plain
from ddpm.data.dataset import InMemory
from ddpm.data.pixels import to_uint8, to_unit
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.figures import chains, drawing, inpaint, interpolation, neighbours
from ddpm.figures.bound import losses
from ddpm.figures.context import NOISED, NamedFigure
from ddpm.figures.figures import FigureSet
from ddpm.instantiate import resolve
from ddpm.metrics import codecs
from ddpm.randomness import generator
from ddpm.samplers.ddim import DDIM
from ddpm.samplers.dpm_solver import DPMSolver

SECTIONS = {name: OmegaConf.load(groups.file_of("figure", name)) for name in groups.options_of("figure")}
FIGURES = {name: resolve(section._target_, NamedFigure) for name, section in SECTIONS.items()}
DIGITS = ["prediction=eps", "schedule.T=20", "sampler.steps=5", "network.channels=16", "network.channel_mult=[1]"]
ROLL = ["recipe=swiss_roll", "schedule.T=20", "sampler.steps=5", "network.channels=16", "figure.points=50"]
FEW = [
    "figure.samples.count=7",
    "figure.rate_distortion.count=3",
    "figure.loss_by_t.count=3",
    "figure.nearest_neighbours.count=2",
    "figure.film={count: 2, frames: 4}",
    "figure.interpolation.lambdas=3",
    "figure.guidance={labels: [3, 5], scales: [0.0, 2.0]}",
    "figure.inpaint={images: [0, 1], samples: 2, resamplings: 2}",
    "figure.guidance_curve={count: 20, scales: [0.0, 2.0]}",
    "figure.restored={images: [0, 5], samples: 2}",
]
TOLD = ["condition=label", *DIGITS]
TOLD_IMAGES = ["condition=image", "condition.factor=4", *DIGITS]
OF_POINTS = [name for name, each in FIGURES.items() if each.points]


def figure_set(names, *overrides) -> FigureSet:
    return of(compose([f"figures=[{','.join(names)}]", *FEW, *overrides], "evaluate"))


def of(config) -> FigureSet:
    """With random weights."""
    images = build.dataset(config)
    p = build.reverse_process(config, images).requires_grad_(False)
    randomise(p.network, seed=0)  # a fresh network is nearly 0, so that nothing would depend on what it is given
    return build.figures(config, images, checkpoint.Checkpoint(ROOT, {}, {}, 6), p)


@pytest.fixture(scope="module")
def digits():
    return figure_set(["samples"], *DIGITS)


@pytest.fixture(scope="module")
def context(digits):
    return digits.context


def test_settings_are_the_arguments():
    sections = {name: set(section) - {"_target_"} for name, section in SECTIONS.items()}
    assert sections == {name: set(inspect.signature(f.make).parameters) - {"context"} for name, f in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_images_is_made(name, tmp_path, capsys):
    told = TOLD if "guidance" in name else TOLD_IMAGES if name == "restored" else DIGITS
    figure_set([name], *told).draw(tmp_path, torch.device("cpu"))
    made = {path.name for path in tmp_path.iterdir()}
    expected = {"film": {"gif"}, "samples": {"png", "npz"}}
    vector = {"svg", "pdf"} if name in ("rate_distortion", "loss_by_t", "guidance_curve") else set()
    assert made == {f"{name}.{suffix}" for suffix in expected.get(name, {"png"}) | vector}
    assert {line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()} == made


@pytest.mark.parametrize("split", ["train", "test", "both"])
def test_figures_are_of_the_images_on_which_the_bound_is_measured(split):
    """Where both splits are measured, the bound of the test images is quoted first, and these are shown."""
    context = figure_set(["samples"], *DIGITS, f"evaluation.split={split}").context
    shown = context.images.split("train" if split == "train" else "test").__getitems__([0, 1, 2])
    assert torch.equal(context.show(context.real(3)), shown)


@pytest.mark.parametrize(("precision", "narrow"), [("32-true", False), ("bf16-mixed", True)])
def test_figures_are_made_in_the_precision_of_the_evaluation(precision, narrow, tmp_path):
    figures, seen = figure_set(["samples"], *DIGITS, f"evaluation.precision={precision}"), set()
    figures.context.p.network.register_forward_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    figures.draw(tmp_path, torch.device("cpu"))
    assert seen == {narrow}


def test_the_same_request_draws_the_same_files_again(tmp_path):
    made = []
    for _ in range(2):
        figure_set(["shared_latents", "rate_distortion"], *DIGITS).draw(tmp_path, torch.device("cpu"))
        made.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 4


def test_codecs_of_the_same_images_stand_beside_rate_and_distortion(context):
    (figure,) = FIGURES["rate_distortion"].make(context, count=3)
    legend = figure.axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["model", "JPEG", "WebP"]
    images = context.images.split("test").__getitems__([0, 1, 2])
    expected = codecs.curves(codecs.with_loss(images))["jpeg"]
    line = next(line for line in figure.axes[2].lines if line.get_label() == "JPEG")
    assert list(line.get_xdata()) == expected["rate_bits_per_dim"]
    assert list(line.get_ydata()) == expected["rmse"]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_channels_can_be_seen(channels):
    images = torch.arange(64 * 2 * channels).reshape(2, channels, 8, 8).to(torch.uint8) // channels
    seen = images if channels == 3 else images.float().mean(1, keepdim=True).byte().expand(-1, 3, -1, -1)
    picture = drawing.grid(images, 2)
    assert picture.mode == "RGB"
    factor, gap = drawing.READABLE // 8, drawing.READABLE // 16
    shown = np.asarray(picture)[gap + factor // 2 :: factor][:8]
    assert np.array_equal(shown[:, gap + factor // 2 :: factor][:, :8], seen[0].permute(1, 2, 0))


@pytest.mark.parametrize("kind", ["picture", "plot", "film", "array"])
def test_files_that_cannot_be_written_to_the_last_are_as_they_were(kind, tmp_path, monkeypatch):
    picture = Image.new("L", (8, 8), 7)
    products = {"picture": picture, "plot": Figure(), "film": drawing.Film([picture] * 2), "array": torch.zeros(2, 2)}
    written = drawing.write(tmp_path, "some", products[kind])
    before = [path.read_bytes() for path in written]

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    changed = {"picture": Image.new("L", (9, 9)), "film": drawing.Film([picture] * 3), "array": torch.ones(2, 2)}
    with pytest.raises(OSError, match="No space left"):
        drawing.write(tmp_path, "some", changed.get(kind, Figure((2, 2))))
    assert [path.read_bytes() for path in written] == before
    assert sorted(tmp_path.iterdir()) == sorted(written)


@pytest.mark.parametrize("name", OF_POINTS)
def test_every_figure_of_points_is_made(name, tmp_path):
    figure_set([name], *ROLL).draw(tmp_path, torch.device("cpu"))
    assert any(tmp_path.iterdir())


def test_samples_are_those_of_the_sampler_in_any_chunks(context, digits, tmp_path):
    digits.draw(tmp_path, torch.device("cpu"))
    draw = generator("cpu", 0, 1, 0)
    *_, last = context.sampler(context.p, torch.randn(7, 1, 8, 8, generator=draw), draw)
    found = np.load(tmp_path / "samples.npz")["arr_0"]
    assert found.dtype == np.uint8
    assert np.array_equal(found, to_uint8(last.x_t).permute(0, 2, 3, 1))
    assert len(figure_set(["samples"], *DIGITS, "evaluation.chunk=3").context.samples(7)) == 7


@pytest.fixture
def shown(monkeypatch):
    """The grids of pictures that are drawn, as they come, each with its caption."""
    drawn = []

    def labelled(images, *_, caption, **__):
        drawn.append((images, caption))
        return Image.new("L", (1, 1))

    monkeypatch.setattr(drawing, "labelled", labelled)
    return drawn


def watched(monkeypatch, context, what=lambda told: told.labels.tolist()):
    """What each evaluation of the network is told, as it comes: the labels."""
    seen, forward = [], type(context.p.network).forward

    def forwarded(network, x, t, told):
        seen.append(what(told))
        return forward(network, x, t, told)

    monkeypatch.setattr(type(context.p.network), "forward", forwarded)
    return seen


@pytest.fixture(scope="module")
def told():
    context = figure_set(["samples"], *TOLD).context
    randomise(context.p.network, seed=0)  # at first the last layer lets nothing through
    return context


def test_samples_of_wanted_classes_are_told_them(told, monkeypatch):
    seen = watched(monkeypatch, told)
    for label, want in [(3, [3] * 7), ([2, 5], [2] * 3 + [5] * 3), ("all", list(range(10)))]:
        seen.clear()
        *_, made = FIGURES["samples"].make(told, count=7, sort=False, label=label)
        assert len(made) == len(want)
        assert seen == [want] * 5


def test_each_column_of_guidance_has_its_weight_and_all_of_them_one_noise(told, shown, monkeypatch):
    seen = watched(monkeypatch, told)
    FIGURES["guidance"].make(told, labels=[1, 4], scales=[0.0, 1.5])
    assert seen == [[1, 4]] * 5 + [[1, 4], [-1, -1]] * 5
    FIGURES["guidance"].make(told, labels=[6], scales=[2.0, 2.0, 0.0])
    row, _ = shown[-1]
    assert torch.equal(row[0], row[1])
    assert not torch.equal(row[0], row[2])


def test_chains_of_a_model_with_classes_are_made(tmp_path):
    names = ["reverse", "progressive", "shared_latents", "nearest_neighbours", "film"]
    figure_set(names, *TOLD).draw(tmp_path, torch.device("cpu"))
    assert {path.stem for path in tmp_path.iterdir()} == {*names}


def test_denoising_shows_x_t_above_the_estimate_from_it(context, shown):
    FIGURES["denoise"].make(context, count=2, t=[5, 15])
    noisy, estimates = shown[0][0].reshape(2, 2, 3, 1, 8, 8).unbind(1)
    real = context.images.split("test").__getitems__([0, 1])
    assert torch.equal(noisy[:, 0], real)
    assert torch.equal(estimates[:, 0], real)
    noise = torch.randn(2, 1, 8, 8, generator=context.draw(NOISED))
    for k, t in ((1, 5), (2, 15)):
        at = torch.full((2,), t)
        x_t = context.p.q.diffuse(to_unit(real), at, noise)
        assert torch.equal(noisy[:, k], to_uint8(x_t))
        assert torch.equal(estimates[:, k], to_uint8(context.p(x_t, at).x_0))


def test_real_examples_are_told_their_own_class(told, monkeypatch):
    seen = watched(monkeypatch, told)
    own = told.images.split("test").labels
    FIGURES["denoise"].make(told, count=3, t=[5])
    losses(told, 4)
    assert seen[0] == own[:3].tolist()
    assert seen[1:] == [own[:4].tolist()] * 20


@pytest.mark.parametrize("method", inpaint.METHODS)
def test_what_is_known_stays_and_the_rest_is_filled_in(method, context, shown):
    FIGURES["inpaint"].make(context, images=[0, 7], mask="left", method=method, samples=2, resamplings=2)
    real, known, *made = shown[0][0].reshape(2, 4, 1, 8, 8).int().unbind(1)
    assert torch.equal(real, context.images.split("test").__getitems__([0, 7]).int())
    assert torch.equal(known[..., :4], real[..., :4])
    for each in made:
        if method == "repaint":
            assert torch.equal(each[..., :4], real[..., :4])
        assert not torch.equal(each[..., 4:], real[..., 4:])
    assert not torch.equal(*made)


@pytest.mark.parametrize("method", inpaint.METHODS)
def test_what_is_hidden_is_not_looked_at(method, context, shown, monkeypatch):
    real, made = torch.rand(2, 1, 8, 8) * 2 - 1, []
    for hidden in (real[..., 4:], torch.ones(2, 1, 8, 4)):
        images = torch.cat([real[..., :4], hidden], 3)
        monkeypatch.setattr(inpaint, "_real", lambda *_, images=images: images)
        FIGURES["inpaint"].make(context, images=[0, 1], mask="left", method=method, samples=2, resamplings=2)
        made.append(shown[-1][0].reshape(2, 4, 1, 8, 8)[:, 2:])
    assert torch.equal(*made)


def test_what_is_filled_in_is_told_nothing(told, shown, monkeypatch):
    seen = watched(monkeypatch, told)
    FIGURES["inpaint"].make(told, images=[0], mask="top", method="repaint", samples=2, resamplings=1)
    assert {label for each in seen for label in each} == {-1}


def test_what_is_restored_stands_between_what_is_told_and_the_example(shown, monkeypatch):
    context = figure_set(["restored"], *TOLD_IMAGES).context
    seen = watched(monkeypatch, context, lambda told: to_uint8(told.image).float())
    FIGURES["restored"].make(context, images=[3, 7], samples=2)
    images, caption = shown[0]
    told, first, second, real = images.reshape(2, 4, 1, 8, 8).float().unbind(1)
    assert torch.equal(real, context.images.split("test").__getitems__([3, 7]).float())
    coarse = real.unflatten(3, (2, 4)).mean(4).unflatten(2, (2, 4)).mean(3)
    assert (told - coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)).abs().max() <= 0.5
    assert all(torch.equal(each, told.repeat_interleave(2, 0)) for each in seen)
    assert not torch.equal(first, second)
    error = (torch.stack([first, second]) - real).square().mean()
    assert f"PSNR {10 * math.log10(255**2 / error):.1f} dB" in caption
    with pytest.raises(ValueError, match="use indices"):
        figure_set(["restored"], *TOLD_IMAGES, "figure.restored.images=[x.png]")


def test_masks_by_name_and_from_a_file(context, workspace):
    wanted = {"left": (0, slice(0, 4)), "right": (0, slice(4, 8)), "top": (1, slice(0, 4)), "bottom": (1, slice(4, 8))}
    for name, (turned, where) in wanted.items():
        mask = inpaint.mask_of(context, name)[0]
        mask = mask.T if turned else mask
        assert mask[:, where].all()
        assert mask.sum() == 32
    levels = np.zeros((8, 8), np.uint8)
    levels[2, 5] = 255
    Image.fromarray(levels).save("mask.png")
    assert inpaint.mask_of(context, "mask.png").nonzero().tolist() == [[0, 2, 5]]
    Image.fromarray(np.stack([levels, levels], 2)).save("clear.png")  # black where it is transparent
    with pytest.raises(ValueError, match="gray level 128: it must be black and white, and opaque"):
        inpaint.mask_of(context, "clear.png")


def test_a_mixture_is_told_nothing(told, monkeypatch):
    seen = watched(monkeypatch, told)
    interpolation.mixtures(told, interpolation.ends(told, [0, 1]), 13, 3)
    assert {label for each in seen for label in each} == {-1}


@pytest.mark.parametrize("label", [10, [1, 10]])
def test_a_class_that_there_is_not_is_refused(label):
    with pytest.raises(ValueError, match=r"label=10: the classes are 0\.\.9"):
        figure_set(["samples"], *TOLD, f"figure.samples.label={label}")


def test_a_model_that_was_never_told_nothing_has_no_such_figures():
    for name in ("interpolation", "guidance"):
        with pytest.raises(ValueError, match=r"condition\.drop=0"):
            figure_set([name], *TOLD, "condition.drop=0.0")


def test_sorting_is_by_class_and_loses_no_sample(context, digits, tmp_path):
    figure_set(["samples"], *DIGITS, "figure.samples.sort=true").draw(tmp_path, torch.device("cpu"))
    found = torch.from_numpy(np.load(tmp_path / "samples.npz")["arr_0"]).permute(0, 3, 1, 2)
    classes = context.features()(found).logits.argmax(1)
    assert (classes.diff() >= 0).all()
    confidence = context.features()(found).logits.softmax(1).amax(1)
    assert (confidence.diff()[classes.diff() == 0] <= 1e-6).all()
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, context.samples(7).numpy()))


@pytest.mark.parametrize("sampler", [DDIM(5, eta=1.0), DPMSolver(6)])
def test_the_last_estimate_of_progressive_generation_is_the_sample(sampler):
    made = figure_set(["progressive"], *DIGITS).context
    made.sampler = sampler
    *_, (t, last) = made.chain("", 3)
    assert (t, last.t) == (1, 0)
    assert torch.equal(to_uint8(last.x_0), to_uint8(last.x_t))


def test_progressive_generation_shows_the_estimates_of_x_0():
    """The estimates are computed by hand here, from the states of the same chain."""
    context, panels = figure_set(["progressive"], *DIGITS).context, []
    context.panels = lambda states, times, caption: panels.append((states, times)) or ()
    FIGURES["progressive"].make(context, count=2, t=[16, 8])
    [(states, times)] = panels
    x_t = {state.t: state.x_t for _, state in context.chain("", 2)}
    assert len(states) == len(times) >= 2
    for shown, t in zip(states, times, strict=True):
        assert torch.equal(shown, to_uint8(context.p(x_t[t], torch.full((2,), t), clip=True).x_0)), t


def test_groups_of_shared_latents_share_x_t_and_nothing_else(context):
    seen = {}
    hook = context.p.network.register_forward_pre_hook(
        lambda _, inputs: seen.update({(len(inputs[0]), int(inputs[1][0]) + 1): inputs[0]})
    )
    times = context.visited([20, 10])
    FIGURES["shared_latents"].make(context, count=4, t=[20, 10])
    hook.remove()
    states = chains.latents(context, times)
    assert list(states) == times
    for t in times:
        assert torch.equal(seen[4, t], states[t].expand(4, -1, -1, -1))
    (later,) = context.visited([1])
    assert not torch.equal(seen[4, later][0], seen[4, later][1])


def test_the_ends_of_an_interpolation_are_the_reconstructions(context):
    """By hand: each image alone, encoded and decoded with the noise of the row."""
    pair = interpolation.ends(context, [0, 1])
    assert torch.equal(to_uint8(pair), context.images.split("test").__getitems__([0, 1]))
    row = interpolation.mixtures(context, pair, 13, 5)
    noise = torch.randn(2, 1, 8, 8, generator=generator("cpu", 0, 4, 13))
    for k, end in ((0, 0), (1, -1)):
        x_t = context.p.q.diffuse(pair[k : k + 1], torch.tensor([13]), noise[k : k + 1])
        *_, last = context.sampler(context.p, x_t, generator("cpu", 0, 5, 13), start=13)
        torch.testing.assert_close(row[end : end + 1 or None], last.x_t, rtol=0, atol=1e-4)
    same = interpolation.mixtures(context, pair[:1].expand(2, -1, -1, -1), 1, 3)
    assert (same - pair[0]).abs().mean() < 0.2  # at t = 1 hardly any noise


def test_a_walk_from_the_middle_visits_the_times_below(context):
    x_t = torch.zeros(3, 1, 8, 8)
    states = list(context.sampler(context.p, x_t, generator("cpu", 0), start=13, repeat_noise=True))
    assert [s.t for s in states] == [t for t in [*context.sampler.steps(context.p.q), 0] if t < 13]
    assert all(torch.allclose(s.x_t[0], s.x_t[2], atol=1e-5) for s in states)


def test_the_forward_chain_has_the_marginals_of_q():
    context = figure_set(["forward"], *ROLL).context
    x_0 = torch.zeros(4000, 2)
    context.points, context.images.split = 4000, lambda name: InMemory(x_0)
    clouds = {}
    context.panels = lambda states, times, caption: clouds.update(zip(times, states, strict=True)) or ()
    FIGURES["forward"].make(context, count=1, t=[3, 9, 20])
    for t in (3, 9, 20):
        assert clouds[t].var() == pytest.approx(float(1 - context.p.q.alpha_bar[t]), rel=0.05)


@pytest.mark.parametrize("space", ["pixels", "features"])
def test_a_training_image_is_its_own_nearest_neighbour(context, space):
    train = context.images.split("train")
    images = train.__getitems__([3, 700, 1499])
    embed = neighbours.embedding(context, space)
    found = neighbours.nearest(images, train, 4, embed, chunk=400)
    assert found.which[:, 0].tolist() == [3, 700, 1499]
    assert found.distance[:, 0].max() < 1e-4
    all_at_once = torch.cdist(embed(images), embed(train.values)).sort(1)
    torch.testing.assert_close(found.distance[:, 1:], all_at_once.values[:, 1:4], rtol=1e-4, atol=1e-4)
    few = neighbours.nearest(images, InMemory(train.values[:3]), 5, embed, chunk=2)
    assert few.which.sort(1).values.tolist() == [[0, 1, 2]] * 3  # all, where there are fewer than are asked for


def test_neighbours_are_training_images_and_held_out_images_the_measure_of_their_distance(context, shown):
    FIGURES["nearest_neighbours"].make(context, count=3, neighbours=2, spaces=["pixels"])
    images, caption = shown[0]
    samples, _, *ranks = images.reshape(3, 4, 1, 8, 8).unbind(1)
    train, test = context.images.split("train").values, context.images.split("test").values[:100]
    ours, theirs = (torch.cdist(to_unit(each).flatten(1), to_unit(train).flatten(1)) for each in (samples, test))
    for rank, which in zip(ranks, ours.argsort(1).T, strict=False):
        assert torch.equal(rank, train[which])
    assert torch.equal(samples, context.samples(3))
    nearest = [float(each.amin(1).median()) for each in (ours, theirs)]
    assert f"pixels {nearest[0]:.3g} (of 100 test images {nearest[1]:.3g})" in caption


@pytest.mark.long
def test_the_curve_of_guidance_is_of_samples_that_are_guided_so_much(monkeypatch):
    """The curve's agreement is counted by hand here, and its FID computed by scipy."""
    context = figure_set(["guidance_curve"], *TOLD, "evaluation.chunk=25").context
    drawn, draw = [], drawing.curves
    monkeypatch.setattr(drawing, "curves", lambda x, values, *rest: drawn.append(values) or draw(x, values, *rest))
    scales, count = [0.0, 3.0], 60
    FIGURES["guidance_curve"].make(context, scales=scales, count=count)
    (found,) = drawn
    assert set(found) == {"fid", "inception_score", "agreement"}
    features, labels = context.features(), context.told(range(count)).labels
    real = features(context.images.split("test").values).pool.double().numpy()
    for k, scale in enumerate(scales):
        made = features(replace(context, guidance=ClassifierFree(scale)).samples(count))
        assert found["agreement"][k] == pytest.approx(float((made.logits.argmax(1) == labels).double().mean()))
        pool = made.pool.double().numpy()
        root = sqrtm(np.cov(pool.T) @ np.cov(real.T)).real
        fid = ((pool.mean(0) - real.mean(0)) ** 2).sum() + np.trace(np.cov(pool.T) + np.cov(real.T) - 2 * root)
        assert found["fid"][k] == pytest.approx(float(fid), rel=1e-4)
    assert found["fid"][0] != pytest.approx(found["fid"][1], rel=1e-3)


def test_losses_are_those_of_the_bound(context):
    found = losses(context, 3)
    assert found.bound.terms.shape == found.simple.shape == (3, 20)
    x_0 = to_unit(context.images.split("test").__getitems__([0, 1, 2]))
    at_T = context.p.q.diffuse(x_0, torch.full((3,), 20), noise := context.noise(3, context.draw(6)))
    output = context.p(at_T, torch.full((3,), 20)).output
    torch.testing.assert_close(found.simple[:, -1], (noise - output).square().mean((1, 2, 3)))


def test_a_film_has_its_frames(context, tmp_path):
    (film,) = FIGURES["film"].make(context, count=2, frames=4)
    assert len(film.frames) == 4
    (path,) = drawing.write(tmp_path, "film", film)
    with Image.open(path) as image:
        assert image.n_frames == 4
        shown_for = [image.info["duration"] for frame in range(4) if image.seek(frame) is None]
    assert shown_for == [drawing.FRAME] * 3 + [drawing.LAST_FRAME]


def test_a_strip_has_a_row_for_each_chain_and_goes_from_left_to_right():
    levels = torch.tensor([[10, 20, 30], [110, 120, 130]], dtype=torch.uint8)  # of a state, and of a chain in it
    picture = np.asarray(drawing.strip([each.reshape(3, 1, 1, 1).expand(3, 1, 4, 4) for each in levels]).convert("L"))
    high, wide = (size // n for size, n in zip(picture.shape, (3, 2), strict=True))
    middles = picture[high // 2 :: high, wide // 2 :: wide]
    assert middles.tolist() == levels.T.tolist()


def test_a_plot_of_rates_counts_the_steps_that_are_done_and_one_of_losses_shows_two_errors():
    rate, rmse = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([10.0, 20.0, 30.0])
    left, middle, _ = drawing.rates(rate, rmse, "").axes
    assert [*left.lines[0].get_xdata()] == [*middle.lines[0].get_xdata()] == [2, 1, 0]
    assert [*middle.lines[0].get_ydata()] == rate.tolist()
    terms = torch.tensor([[1.0, 5.0], [3.0, 9.0], [8.0, 7.0]])
    for axes, values in zip(
        drawing.losses(terms, "bits/dim", terms + 1, "noise", "").axes, (terms, terms + 1), strict=True
    ):
        mean, error = values.mean(0).numpy(), values.numpy().std(0, ddof=1) / 3**0.5
        (band,) = axes.collections[0].get_paths()
        for k, t in enumerate((1, 2)):
            edges = sorted({round(float(y), 4) for x, y in band.vertices if x == t})
            assert edges[:: len(edges) - 1] == pytest.approx([mean[k] - 2 * error[k], mean[k] + 2 * error[k]], rel=1e-3)


def test_a_labelled_grid_holds_the_pixels():
    images = torch.arange(6 * 64, dtype=torch.int64).remainder(256).byte().reshape(6, 1, 8, 8)
    picture = np.asarray(drawing.labelled(images, 3, caption="c" * 90, above="abc", beside="de", corner="t", width=96))
    tiles = np.asarray(drawing._tiled(images, 3, 4))
    high, wide, _ = tiles.shape
    windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (high, wide))[:, :40]
    assert (windows == tiles[..., 0]).all((2, 3)).any()


def test_plots_name_their_axes(context):
    for name in ("rate_distortion", "loss_by_t"):
        (plot,) = FIGURES[name].make(context, count=3)
        assert isinstance(plot, Figure)
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in plot.axes)


REFUSED = {
    "figures=[sampels]": "sampels unknown; known are denoise, film",
    "figures=samples": r"must be a list, figures=\[samples\]",
    "figures=[]": r"names none: choose from denoise, .*, or leave it out",
    "figures=[reverse] figure.reverse.t=[0]": r"1\.\.T, and T=20",
    "figures=[reverse] figure.reverse.t=[21]": r"1\.\.T, and T=20",
    "figures=[reverse] figure.reverse.t=5": "must be a list",
    "figures=[samples] figure=null": "figure=null does not exist",
    "figures=[samples] figure.samples.count=0": "at least 1",
    "figures=[samples] figure.samples.sort=maybe": "true or false",
    "figures=[film] figure.film.frames=1": "at least 2",
    "figures=[film] figure.film.frame=1": "did you mean figure.film.frames",
    "figures=[interpolation] figure.interpolation.images=[0]": "two images",
    "figures=[inpaint] figure.inpaint.images=[297]": r"figure\.inpaint\.images: .*0\.\.296, and no 297",
    "figures=[inpaint] figure.inpaint.images=[]": "must be images",
    "figures=[restored]": "train it with condition=image",
    "figures=[inpaint] figure.inpaint.mask=nowhere.png": "use left, right, top, bottom",
    "figures=[inpaint] figure.inpaint.mask=wide.png": "is 9x8, and the model's images are 8x8",
    "figures=[inpaint] figure.inpaint.mask=gray.png": "gray level 7: it must be black and white",
    "figures=[inpaint] figure.inpaint.mask=black.png": "of one colour",
    "figures=[inpaint] figure.inpaint.method=magic": "repaint, mmps, dps",
    "figures=[inpaint] figure.inpaint.samples=0": "at least 1",
    "figures=[interpolation] figure.interpolation.images=[0,297]": r"0\.\.296, and no 297",
    "figures=[interpolation] figure.interpolation.images=[0,nowhere.png]": "nowhere.png",
    "figures=[interpolation] figure.interpolation.images=[0,wide.png]": "wide.png: it is 9x8, and the model's",
    "figures=[interpolation] figure.interpolation.images=[0,text.png]": "text.png: it is not a picture",
    "figures=[nearest_neighbours] figure.nearest_neighbours.spaces=[colours]": "pixels, features",
    "figures=[shared_latents] sampler.eta=0.0": "sampler=ancestral",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_shown_is_refused(words, workspace):
    Image.new("L", (9, 8)).save("wide.png")
    (workspace / "text.png").write_text("not a picture")
    for name, level in (("gray", 7), ("black", 0)):
        Image.new("L", (8, 8), level).save(f"{name}.png")
    config = compose(DIGITS)
    with pytest.raises((RequestError, ValueError, OSError), match=REFUSED[words]):
        of(compose_evaluation(plain(config), words.split()))


def test_points_have_no_figures_of_images():
    with pytest.raises(ValueError, match="interpolation shows images, and swiss_roll is points in the plane: choose"):
        figure_set(["samples", "interpolation"], *ROLL)


def test_pictures_of_files(context, workspace):
    Image.fromarray(context.images.split("train")[0][0].numpy()).save("a b.png")
    pair = interpolation.ends(context, ["a b.png", 0])
    assert torch.equal(to_uint8(pair[0]), context.images.split("train")[0])


def test_the_command_draws_into_the_run_folder(workspace):
    Fork.train(*SMALL, cwd=workspace).wait()
    asked = ["ckpt=runs/latest", "figures=[reverse,rate_distortion]", "figure.rate_distortion.count=2"]
    printed = Fork("evaluate.py", *asked, cwd=workspace).wait().splitlines()
    drawn = sorted((workspace / "runs/latest/figures").resolve().iterdir())
    assert [line for line in sorted(printed) if line.startswith("/")] == [str(path) for path in drawn]
    assert [path.name for path in drawn] == [
        "rate_distortion.pdf",
        "rate_distortion.png",
        "rate_distortion.svg",
        "reverse.png",
    ]
    assert not (workspace / "runs/latest/results.json").exists()
    refused = Fork("evaluate.py", "ckpt=runs/latest", "figures=[raw]", "out=nothing", cwd=workspace).wait(code=2)
    assert "known are denoise" in refused
    assert not (workspace / "nothing").exists()
