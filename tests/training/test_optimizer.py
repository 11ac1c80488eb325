"""Muon is held against the singular value decomposition, and against torch.optim.Muon, which multiplies in bfloat16."""

import copy
import functools

import numpy as np
import pytest
import torch
from commands import SMALL
from torch import nn

from ddpm import build
from ddpm.commands.train import train
from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.networks.unet import UNet
from ddpm.training.optimizer import AdamWithMuon, OptimizerSettings, hidden_matrices, orthogonalized

SHORT = [*SMALL, "evaluate_after=false"]


def by_decomposition(matrix):
    """The polynomial of Jordan et al. 2024, five times, of the singular values by themselves, in float64."""
    u, s, v = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return torch.tensor((u * s) @ v)


def network():
    """Layers of every kind; the hidden matrices are those of layers 2, 4 and 8."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Conv2d(16, 24, 3), nn.SiLU(), nn.Conv2d(24, 8, 1)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 64), nn.Embedding(12, 9), nn.Linear(64, 1)),
    )


def with_gradients(module, step=0):
    """The module with random gradients in the memory layout of its weights, as autograd gives them."""
    draw = torch.Generator().manual_seed(step)
    for weight in module.parameters():
        weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=draw))
    return module


@pytest.mark.parametrize("shape", [(8, 8), (8, 300), (300, 8), (33, 70)])
def test_the_iterations_act_on_the_singular_values_alone(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    matrices[1] *= 1e-4  # the scale of a matrix counts for nothing
    for matrix, found in zip(matrices, orthogonalized(matrices), strict=True):
        torch.testing.assert_close(found.double(), by_decomposition(matrix), rtol=0, atol=1e-4)
        assert all(0.6 < value < 1.25 for value in torch.linalg.svdvals(found))


def test_a_matrix_of_zeros_stays_one():
    assert not orthogonalized(torch.zeros(1, 8, 9)).any()


@pytest.mark.parametrize(
    "words",
    [
        ["recipe=digits", "network.patch_size=4"],
        ["recipe=digits", "network.patch_size=2", "variance=learned_range", "objective=hybrid"],
        ["recipe=swiss_roll"],
    ],
)
def test_layers_that_read_an_example_or_give_the_output_are_adams_however_wide(words):
    config = compose(words)
    network = build.reverse_process(config, build.dataset(config)).network
    names = {id(weight): name for name, weight in network.named_parameters()}
    found = {names[id(weight)] for weight in hidden_matrices(network)}
    assert found
    assert not {f"{layer}.weight" for layer in ("conv_in", "conv_out", "dense_in", "dense_out")} & found


def test_a_weight_that_is_an_embeddings_too_is_adams():
    tied = nn.Sequential(nn.Embedding(12, 16), nn.Linear(16, 12), nn.Linear(12, 8))
    tied[1].weight = tied[0].weight
    assert [id(weight) for weight in hidden_matrices(tied)] == [id(tied[2].weight)]


@pytest.mark.parametrize(
    "parametrize", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_of_a_weight_that_is_computed_adam_moves_what_it_is_computed_of(parametrize):
    module = nn.Sequential(nn.Linear(8, 16), parametrize(nn.Linear(16, 16)))
    assert [id(weight) for weight in hidden_matrices(module)] == [id(module[0].weight)]
    before = [weight.detach().clone() for weight in module.parameters()]
    module(torch.randn(4, 8)).square().sum().backward()
    AdamWithMuon(module, 1e-2, 1e-2).step()
    assert not any(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_the_hidden_matrices_are_those_between_other_layers():
    module = network()
    assert [id(weight) for weight in hidden_matrices(module)] == [id(module[k].weight) for k in (2, 4, 8)]
    tied = nn.Linear(32, 64)
    tied.weight = module[8].weight
    assert len(hidden_matrices(nn.Sequential(module[8], nn.Linear(64, 32), tied))) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_matrices_move_by_muon_and_all_else_by_adam(layout):
    module = network().to(memory_format=layout)
    start = copy.deepcopy(module)
    hidden = {name for name, _ in module.named_parameters() if name in ("2.weight", "4.weight", "8.weight")}
    peers = {name: nn.Parameter(w.detach().clone(memory_format=torch.contiguous_format).flatten(1) if name in hidden
             else w.detach().clone()) for name, w in module.named_parameters()}  # fmt: skip
    muon = torch.optim.Muon([peers[name] for name in sorted(hidden)], 0.02, weight_decay=0, momentum=0.95)
    adam = torch.optim.Adam([peer for name, peer in peers.items() if name not in hidden], 5e-3)
    mine = AdamWithMuon(module, 5e-3, 0.02)
    for step in range(4):
        with_gradients(module, step)
        for name, weight in module.named_parameters():
            peers[name].grad = weight.grad.reshape(peers[name].shape).clone()
        for optimizer in (mine, muon, adam):
            optimizer.step()
        assert all(weight.grad is not None for weight in module.parameters())  # whoever reads gradients finds them
    for (name, weight), before in zip(module.named_parameters(), start.parameters(), strict=True):
        moved = (weight - before).norm()
        assert moved > 1e-3, name
        far = (weight.flatten() - peers[name].flatten()).norm()
        assert far < (0.03 if name in hidden else 1e-5) * moved, name  # bfloat16 has 8 bits


def test_a_weight_without_a_gradient_stays_as_it_is():
    module = with_gradients(network())
    module[2].weight.grad = None
    before = module[2].weight.detach().clone()
    AdamWithMuon(module, 5e-3, 0.02).step()
    assert torch.equal(module[2].weight, before)


def test_the_closure_is_called_once_with_gradients():
    module, calls = network(), []

    def closure():
        assert torch.is_grad_enabled()
        calls.append(1)
        with_gradients(module)
        return 7.0

    assert AdamWithMuon(module, 5e-3, 0.02).step(closure) == 7.0
    assert len(calls) == 1


def test_the_state_of_an_optimizer_is_that_of_another():
    settings = OptimizerSettings(5e-3, 0, 1.0, muon_lr=0.02)
    first = network()
    one = settings.optimizer(first)
    with_gradients(first, 0)
    one.step()
    second = copy.deepcopy(first)
    other = settings.optimizer(second)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for module, optimizer in ((first, one), (second, other)):
        with_gradients(module, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_both_learning_rates_warm_up_and_fall():
    settings = OptimizerSettings(5e-3, 4, 1.0, anneal=True, muon_lr=0.02)
    optimizer = settings.optimizer(network())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.factor(step, 10))
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    factors = [min(step / 4, 1) * (1 - step / 10) for step in range(10)]
    assert rates == [pytest.approx([5e-3 * factor, 0.02 * factor]) for factor in factors]


def test_the_digits_network_has_its_first_and_last_layer_and_its_classes_by_adam():
    config = compose(["recipe=digits_conditional", "optimizer.muon_lr=0.02"])
    module = build.module(config, build.dataset(config))
    hidden = {id(weight) for weight in hidden_matrices(module.p)}
    left = {
        name: weight for name, weight in module.p.named_parameters() if weight.ndim > 1 and id(weight) not in hidden
    }
    shapes = sorted(tuple(weight.shape) for weight in left.values())
    assert shapes == [(1, 32, 3, 3), (10, 128), (32, 1, 3, 3)]


def test_stopped_and_resumed_it_is_the_same_run(workspace):
    settings = [*SHORT, "optimizer.anneal=false", "optimizer.muon_lr=0.02"]
    train([*settings, f"out={workspace / 'whole'}", "max_steps=6"])
    train([*settings, f"out={workspace / 'cut'}", "max_steps=3"])
    train([f"resume={workspace / 'cut'}", "max_steps=6"])
    whole, cut = (
        torch.load(workspace / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(weight, cut[name]) for name, weight in whole.items())
    for other in ("optimizer.muon_lr=0.03", "optimizer.muon_lr=null"):
        with pytest.raises(RequestError, match="would be another run"):
            train([f"resume={workspace / 'cut'}", "max_steps=8", other])


@pytest.mark.parametrize("value", ["0", "-1", "true", "fast", "[1]"])
def test_a_learning_rate_that_is_none_is_refused(value):
    with pytest.raises(RequestError, match=r"optimizer\.muon_lr="):
        train([*SHORT, f"optimizer.muon_lr={value}"])


@pytest.mark.parametrize("muon_lr", ["null", "0.02"])
def test_a_run_with_weights_that_never_move_goes_on(muon_lr, workspace, monkeypatch):
    """One layer is frozen, and one is never called: neither has a gradient, or moments in the checkpoint."""
    made = UNet.__init__

    @functools.wraps(made)
    def with_idle_layers(self, *arguments, **settings):
        made(self, *arguments, **settings)
        self.unused = nn.Conv2d(16, 16, 3)
        self.temb.dense[0].requires_grad_(False)

    monkeypatch.setattr(UNet, "__init__", with_idle_layers)
    words = [*SHORT, "optimizer.anneal=false", f"optimizer.muon_lr={muon_lr}"]
    train([*words, "max_steps=3", "out=cut"])
    train(["resume=cut", "max_steps=5"])
    train([*words, "max_steps=5", "out=whole"])
    cut, whole = (
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("cut", "whole")
    )
    assert all(torch.equal(cut[name], weight) for name, weight in whole.items())
