"""Training by train.py is held against a loop that is written out here, after the paper's and Adam's equations.

The loop shares the network and the stored bytes of the data with the package, nothing else: the random draws are keyed
anew, and beta_t, the loss, the weights of the draws, clipping, Adam, the learning rate and the average are spelled out.
"""

import contextlib
import copy
import csv
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import torch
from PIL import Image

from ddpm import build
from ddpm.checkpoints import checkpoint
from ddpm.commands.train import train
from ddpm.config.compose import compose
from ddpm.data.conditioning import ConditionedBatch
from ddpm.data.kind import IMAGES
from ddpm.diffusion.budget import estimate_bound
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.instantiate import instantiate
from ddpm.training.divergence import DivergedError
from ddpm.training.module import DiffusionModule

T, STEPS, BATCH, SEED = 9, 7, 12, 5
MUON_LR = 0.03
SIZES, CHUNK = {"train": 31, "test": 107}, 40
LR, CLIP, DECAY, WARMUP, HISTORY, SHARE, DROP = 1e-2, 0.4, 0.8, 3, 1, 0.2, 0.4
ALPHA_BARS = np.cumprod(1 - reference.linear(T, 1e-4, 0.3))
SETTINGS = [
    *("logger=csv", f"seed={SEED}", f"max_steps={STEPS}", "prediction=eps", f"evaluation.chunk={CHUNK}"),
    *("schedule=linear", f"schedule.T={T}", "schedule.beta_T=0.3"),
    *("sampler.steps=3", f"loader.batch_size={BATCH}", f"optimizer={{lr:{LR},warmup:{WARMUP},grad_clip:{CLIP}}}"),
    "optimizer.muon_lr=null",
    f"ema.decay={DECAY}",
    *("network.channels=8", "network.channel_mult=[1,1]", "network.groups=4", "network.attention_resolutions=[4]"),
]


def draws(*key):
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)


def seed_dropout(*key):
    torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))


class Importance:
    """Nichol & Dhariwal 2021, Eq. (18), with the last loss at each t."""

    def __init__(self):
        self.losses = {}

    def probabilities(self):
        if len(self.losses) < T:
            return np.full(T, 1 / T)
        root = np.array([self.losses[t] for t in range(1, T + 1)])
        return (1 - SHARE) * root / root.sum() + SHARE / T

    def sample(self, n, draw):
        p = self.probabilities()
        u = torch.rand(n, generator=draw, dtype=torch.float64).numpy()
        t = np.array([1 + int((np.cumsum(p) <= each).sum()) for each in u])
        return torch.tensor(t), torch.tensor(1 / (T * p[t - 1]), dtype=torch.float32)

    def update(self, t, losses):
        self.losses |= dict(zip(t.tolist(), losses.tolist(), strict=True))


class UniformTimes:
    def sample(self, n, draw):
        return torch.randint(1, T + 1, (n,), generator=draw), torch.ones(n)

    def update(self, t, losses):
        pass


def gradient_of(network, images, labels, step, times, *, flips, accumulate):
    """The gradient of step `step`'s loss, and t and the loss of each example."""
    n = len(images)
    epochs = [torch.randperm(n, generator=draws(SEED, epoch)) for epoch in range(1 + (step + 1) * BATCH // n)]
    indices = torch.cat(epochs)[step * BATCH : (step + 1) * BATCH]
    draw = draws(SEED, step)
    t, weight = times.sample(BATCH, draw)
    noise = torch.randn((BATCH, *images.shape[1:]), generator=draw)
    x_0 = images[indices].float() / 127.5 - 1
    if flips:
        mirrored = torch.rand(BATCH, generator=draw) < 0.5
        x_0 = torch.stack([x.flip(2) if m else x for x, m in zip(x_0, mirrored, strict=True)])
    told = []
    if labels is not None:
        kept = torch.rand(BATCH, generator=draw) >= DROP
        told = [torch.where(kept, labels[indices], -1)]
    abar = torch.tensor(ALPHA_BARS, dtype=torch.float32)[t - 1].reshape(-1, 1, 1, 1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * noise
    network.zero_grad()
    losses = []
    for part in range(accumulate):
        mine = slice(part * BATCH // accumulate, (part + 1) * BATCH // accumulate)
        seed_dropout(SEED, step, part + 1)
        given = [SimpleNamespace(labels=each[mine], image=None) for each in told]
        loss = (network(x_t[mine], t[mine] - 1, *given) - noise[mine]).square().mean((1, 2, 3))
        ((weight[mine] * loss).sum() / BATCH).backward()
        losses.append(loss.detach())
    times.update(t, torch.cat(losses))
    return [w.grad.clone() for w in network.parameters()], t, torch.cat(losses)


def by_muon(gradient, momentum):
    """Where Muon moves a matrix (Jordan et al. 2024), by the singular values; `momentum` takes the gradient in."""
    momentum.mul_(0.95).add_(0.05 * gradient)
    u, s, v = np.linalg.svd((0.05 * gradient + 0.95 * momentum).double().flatten(1).numpy(), full_matrices=False)
    s = s / max(np.sqrt((s**2).sum()), 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return torch.tensor((u * s) @ v * max(1, len(u) / v.shape[1]) ** 0.5, dtype=torch.float32).view_as(gradient)


def by_hand(network, images, labels, *, anneal, flips, accumulate, times, muon=False):
    """The rows that metrics.csv should have, the trained network, and after each step the weights and their average."""
    weights = list(network.parameters())
    average, raw, averages, rows = [w.detach().clone() for w in weights], {}, {}, {}
    outer = ("conv_in.", "conv_out.")
    hidden = [muon and w.ndim > 1 and not name.startswith(outer) for name, w in network.named_parameters()]
    moment, square = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    network.train()
    for step in range(STEPS):
        gradient, t, loss = gradient_of(network, images, labels, step, times, flips=flips, accumulate=accumulate)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient))
        lr = LR * min(step / WARMUP, 1) * (1 - step / STEPS if anneal else 1)
        rows[step + 1] = {"train/loss": loss.mean(), "train/gradient_norm": norm, "train/learning_rate": lr}
        for k in range(4):
            inside = loss[((t - 1) * 4 // T) == k]
            rows[step + 1] |= {f"train/loss_quarter_{k + 1}": inside.mean()} if len(inside) else {}
        with torch.no_grad():
            for w, g, m, v, a, by_matrix in zip(weights, gradient, moment, square, average, hidden, strict=True):
                g *= min(1.0, CLIP / norm)
                if by_matrix:
                    w -= MUON_LR * lr / LR * by_muon(g, m)
                    a.mul_(DECAY).add_((1 - DECAY) * w)
                    continue
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                unbiased = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                w -= lr * m / (1 - 0.9 ** (step + 1)) / unbiased
                a.mul_(DECAY).add_((1 - DECAY) * w)
        averages[step + 1] = [a.clone() for a in average]
        raw[step + 1] = [w.detach().clone() for w in weights]
    return rows, network, raw, averages


def every(log):
    return f"every={{log:{log},validation:4,samples:100,checkpoint:100}}"


def logged(path):
    """The numbers of metrics.csv by step."""
    rows = {}
    for line in csv.DictReader(path.read_text().splitlines()):
        rows.setdefault(int(line["step"]), {}).update({k: float(v) for k, v in line.items() if v and k != "step"})
    return rows


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Coloured pictures in three classes, no two rows, columns or channels alike; to test on, more than one chunk."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, n in SIZES.items():
        for k in range(n):
            (folder / split / "abc"[k % 3]).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            picture.save(folder / split / "abc"[k % 3] / f"{k:03d}.png")
    return folder


@pytest.mark.parametrize(
    ("dropout", "anneal", "flips", "accumulate", "importance", "log", "labelled", "muon"),
    [
        pytest.param(0.0, False, False, 1, False, 1, False, False, id="paper"),
        pytest.param(0.3, True, True, 2, False, 2, False, False, id="dropout, annealed, mirrored, two micro-batches"),
        pytest.param(0.3, False, True, 1, True, 1, False, False, id="importance-sampled times"),
        pytest.param(0.3, False, True, 2, False, 1, True, False, id="labels, some dropped, in two micro-batches"),
        pytest.param(0.3, True, True, 2, False, 1, False, True, id="matrices by Muon, annealed, in two micro-batches"),
    ],
)
def test_training_is_the_loop_written_out(
    dropout, anneal, flips, accumulate, importance, log, labelled, muon, pictures, workspace
):
    settings = [
        *(*SETTINGS, every(log)),
        *("data=folder", f"data.path={pictures}", "data.size=[8,8]", f"data.horizontal_flip={flips}"),
        *(f"network.dropout={dropout}", f"optimizer.anneal={anneal}", f"trainer.accumulate={accumulate}"),
        *(f"out={workspace / 'run'}", "features=inception", "trainer.precision=32-true"),
    ]
    if importance:
        settings += [
            "timesteps=loss_second_moment",
            f"+timesteps.history={HISTORY}",
            f"+timesteps.uniform_share={SHARE}",
        ]
    settings += ["condition=label", f"condition.drop={DROP}"] if labelled else []
    settings += [f"optimizer.muon_lr={MUON_LR}"] if muon else []
    train(settings)

    config = compose(settings)
    images = build.dataset(config)
    network = build.network(config, images)
    first = copy.deepcopy(network)
    examples = [images.split(split).__getitems__(list(range(n))) for split, n in SIZES.items()]
    counts = [[len(range(k, n, 3)) for k in range(3)] for n in SIZES.values()]  # folder by folder
    labels = [torch.arange(3).repeat_interleave(torch.tensor(each)) for each in counts]
    train_labels, test_labels = labels if labelled else (None, None)
    times = Importance() if importance else UniformTimes()
    rows, network, raw, averages = by_hand(
        network, examples[0], train_labels, anneal=anneal, flips=flips, accumulate=accumulate, times=times, muon=muon
    )

    saved = torch.load(workspace / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for (name, trained), start, average in zip(
        network.named_parameters(), first.parameters(), averages[STEPS], strict=True
    ):
        if name.endswith("k.bias"):  # which softmax ignores: its gradient is rounding
            continue
        moved = (trained - start).norm()
        assert moved > LR / 10, name
        assert (saved[f"p.network.{name}"] - trained).norm() < 1e-3 * moved, name
        assert (saved[f"p_ema.network.{name}"] - average).norm() < 1e-3 * moved, name
    for name, weight in checkpoint.load(workspace / "run").weights.items():  # as evaluation and the library read them
        assert torch.equal(weight, saved[f"p_ema.network.{name}"])
    if importance:
        assert len(times.losses) == T  # the draws have become uneven

    found = logged(workspace / "run/metrics.csv")
    assert {step for step, row in found.items() if "train/loss" in row} == set(range(log, STEPS + 1, log))
    for step, row in ((step, row) for step, row in rows.items() if step % log == 0):
        here = {name: value for name, value in found[step].items() if name in row or "quarter" in name}
        assert here == pytest.approx({name: float(value) for name, value in row.items()}, rel=1e-4)

    for k, name in ((1, f"bits_per_dim_{T}_timesteps"), (0, f"train_bits_per_dim_{T}_timesteps")):
        validated = {step: row[f"validation/{name}"] for step, row in found.items() if f"validation/{name}" in row}
        assert validated.keys() == {4}
        told = (train_labels, test_labels)[k]
        for step, bits in validated.items():
            assert bits == pytest.approx(bound_of(config, network, averages[step], examples[k], told), rel=1e-5)
            assert bits != pytest.approx(bound_of(config, network, raw[step], examples[k], told), rel=1e-3)
    assert checkpoint.load(workspace / "run/checkpoints/best.ckpt").step == 4


class WithLabels(torch.nn.Module):
    """A network that is told these labels."""

    def __init__(self, network, labels):
        super().__init__()
        self.network, self.labels, self.image = network, labels, None

    def forward(self, x, t):
        return self.network(x, t, self)


def bound_of(config, network, weights, images, labels):
    """The estimate of the bound in bits/dim, with these weights, of the test split, each chunk with its own draws."""
    measured = copy.deepcopy(network).eval()
    with torch.no_grad():
        for mine, weight in zip(measured.parameters(), weights, strict=True):
            mine.copy_(weight)
        axes = [instantiate(config[axis], object) for axis in ("prediction", "variance")]
        q, nats = ForwardProcess(instantiate(config.schedule, object)), []
        for k, x in enumerate((images.float() / 127.5 - 1).split(CHUNK)):
            told = measured if labels is None else WithLabels(measured, labels.split(CHUNK)[k])
            p = ReverseProcess(told, q, *axes, IMAGES.decoder("tanh"))
            nats += estimate_bound(p, x, draws(SEED, k), num_timesteps=T).nats.tolist()
    assert len(nats) == len(images)
    return float(np.mean(nats)) / (images[0].numel() * math.log(2))


@pytest.mark.parametrize(("ranks", "micros"), [(2, 2), (5, 1)], ids=["equal parts", "parts of 2 and 3"])
def test_ranks_and_micro_batches_share_one_global_batch_with_dropout_of_their_own(ranks, micros, pictures):
    """Every part has the draws that are written out here; the mean of their losses is that of the whole batch."""
    settings = ["data=folder", f"data.path={pictures}", "data.size=[8,8]", "data.horizontal_flip=true"]
    config = compose([*SETTINGS, *settings, "network.dropout=0.3", "features=inception", "sampler.steps=3"])
    images = build.dataset(config)
    module, step, parts = build.module(config, images), 6, ranks * micros
    whole = images.split("train").__getitems__(list(range(BATCH)))
    with torch.no_grad():
        for weight in module.train().p.network.parameters():  # at first the last layer lets nothing through
            weight.normal_(std=0.3, generator=draws(SEED))
    slices = [slice(part * BATCH // parts, (part + 1) * BATCH // parts) for part in range(parts)]
    found = {}
    for rank in range(ranks):
        module.trainer = SimpleNamespace(
            global_rank=rank, world_size=ranks, global_step=step, accumulate_grad_batches=micros
        )
        for micro in range(micros):
            part = ranks * micro + rank
            batch = ConditionedBatch(whole[slices[part]], None)
            found[part] = float(module.training_step(batch, micros * step + micro).detach())
    assert len(found) == parts

    draw = draws(SEED, step)
    t, noise = torch.randint(1, T + 1, (BATCH,), generator=draw), torch.randn(whole.shape, generator=draw)
    mirrored = torch.rand(BATCH, generator=draw) < 0.5
    x_0 = torch.stack([x.flip(2) if m else x for x, m in zip(whole.float() / 127.5 - 1, mirrored, strict=True)])
    abar = torch.tensor(ALPHA_BARS, dtype=torch.float32)[t - 1].reshape(-1, 1, 1, 1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * noise
    for part, loss in found.items():
        mine = slices[part]
        seed_dropout(SEED, step, part + 1)
        with torch.no_grad():
            expected, other = (  # other draws would show
                (module.p.network(x_t[mine], t[mine] - 1) - noise[mine]).square().mean((1, 2, 3)).sum() * parts / BATCH
                for _ in range(2)
            )
        assert loss == pytest.approx(float(expected), rel=1e-5), part
        assert loss != pytest.approx(float(other), rel=2e-5)


def test_the_averaged_network_drops_nothing_out_while_the_other_is_trained():
    config = compose([*SETTINGS, "network.dropout=0.5"])
    module = build.module(config, build.dataset(config)).train()
    x, t = torch.randn(8, 1, 8, 8, generator=draws(SEED)), torch.arange(8)
    with torch.no_grad():
        for weight in module.parameters():  # at first the last layer lets nothing through
            weight.normal_(std=0.3, generator=draws(SEED))
        for p, same in ((module.p, False), (module.p_ema, True)):
            assert torch.equal(p.network(x, t), p.network(x, t)) == same


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_the_run_at_its_step(wrong, workspace):
    config = compose(SETTINGS)
    module = build.module(config, build.dataset(config))
    module._trainer = SimpleNamespace(
        global_step=3, world_size=1, precision_plugin=None, loggers=[], optimizers=[], default_root_dir=workspace
    )
    parts = {"batch": torch.zeros(2, 1, 8, 8), "t": torch.tensor([1, 2]), "loss": torch.tensor([0.5, 0.25])}
    for slope, expectation in ((1.0, contextlib.nullcontext()), (wrong, pytest.raises(DivergedError, match="step 4:"))):
        module._micro_batches = [parts]
        for weight in module.p.network.parameters():
            weight.grad = torch.full_like(weight, slope)
        module.log_every = 100
        with expectation:
            module.configure_gradient_clipping(torch.optim.Adam(module.p.parameters()))
    assert (workspace / "diverged_step_0000004.safetensors").exists()


def test_away_from_the_cpu_a_step_is_judged_with_the_next_or_where_that_is_asked_for(monkeypatch):
    """So that the CPU need not wait for the device; each step is judged once."""
    config = compose(SETTINGS)
    module, judged = build.module(config, build.dataset(config)), []
    monkeypatch.setattr(DiffusionModule, "device", torch.device("cuda"))
    monkeypatch.setattr(module, "_require_finite", judged.append)
    for step in ("first", "second"):
        module._require_finite_soon(step)
    assert judged == ["first"]
    for _ in range(2):
        module.require_finite_now()
        assert judged == ["first", "second"]


def test_processes_that_validate_unequal_shares_count_each_image_once(monkeypatch):
    """Two ranks, of 3 images and of 1: the mean over 4, whatever each has."""
    config, logged, terms = compose(SETTINGS), {}, []
    module = build.module(config, build.dataset(config))
    shares = [(torch.tensor([1.0, 2.0, 3.0]), [6.0] * T), (torch.tensor([10.0]), [2.0] * T)]
    sent = []
    strategy = SimpleNamespace(reduce=lambda sums, reduce_op: sent.append(sums) or sum(sent))
    module._trainer = SimpleNamespace(strategy=strategy, loggers=[], global_step=0)
    monkeypatch.setattr(module, "log_now", lambda metrics, step: logged.update(metrics))
    monkeypatch.setattr("ddpm.training.module.log_by_t", lambda loggers, name, values, *_: terms.append(values))
    for share in shares:
        module.held_out._estimates = [share]
        module._log_validation(step=1)
    assert logged == {f"validation/bits_per_dim_{T}_timesteps": pytest.approx(16 / 4)}
    assert terms[-1] == pytest.approx([8.0 / 4] * T)


def test_an_image_that_is_told_is_mirrored_with_the_example():
    config = compose([*SETTINGS, "loader.batch_size=16", "condition=image", "condition.factor=2"])
    images = build.dataset(config)
    module, told = build.module(config, images), build.conditioning(config)
    module.horizontal_flip, seen = True, []
    module._trainer = SimpleNamespace(global_rank=0, world_size=1, global_step=0, accumulate_grad_batches=1)

    def objective(p, x_0, t, noise):
        seen.append((x_0, p.network.condition.image))
        return p(x_0, t).output.flatten(1).mean(1)

    module.objective = objective
    batch = told.batch(images.split("train"), range(16))
    module.training_step(batch, 0)
    ((x_0, image),) = seen
    mirrored = (x_0 != batch.values.float() / 127.5 - 1).flatten(1).any(1)
    assert 0 < mirrored.sum() < 16
    torch.testing.assert_close(
        image, torch.nn.functional.avg_pool2d(x_0, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    )


def test_a_run_that_goes_on_with_less_memory_is_the_same_run(run_folder, capsys):
    shutil.copytree(run_folder, "plain")
    for name, more in (("plain", []), ("run", ["network.checkpointing=true"])):
        train([f"resume={name}", "max_steps=8", *more])
    assert "network.checkpointing=true (was false)" in capsys.readouterr().out
    plain, other = (
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("plain", "run")
    )
    assert plain.keys() == other.keys()
    for key, value in plain.items():
        assert torch.equal(other[key], value), key
