import math

import numpy as np
import pytest
import torch

from ddpm.networks.mlp import MLP


def test_answers_for_every_point_by_itself():
    torch.manual_seed(0)
    network = MLP(2, 4, channels=16)
    x, t = torch.randn(5, 2), torch.tensor([0, 1, 10, 500, 999])
    out = network(x, t)
    assert out.shape == (5, 4)
    torch.testing.assert_close(network(x[2:3], t[2:3]), out[2:3])


def test_is_its_formulas_in_numpy():
    torch.manual_seed(0)
    network = MLP(2, 3, channels=8, num_res_blocks=2, frequencies=3)
    w = {key: value.double().numpy() for key, value in network.state_dict().items()}
    x, t = np.array([[0.3, -0.7], [0.9, 0.1]]), np.array([4, 700])

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(x):
        return x / (1 + np.exp(-x))

    frequencies = 10000 ** -(np.arange(4) / 3)
    temb = np.concatenate([np.sin(np.outer(t, frequencies)), np.cos(np.outer(t, frequencies))], 1)
    temb = silu(dense(silu(dense(temb, "temb.0")), "temb.2"))
    features = [x]
    for octave in (1, 2, 4):
        features += [np.sin(octave * math.pi * x), np.cos(octave * math.pi * x)]
    h = dense(np.concatenate(features, 1), "dense_in")
    for k in range(2):
        inside = dense(silu(h), f"block.{k}.dense1") + dense(temb, f"block.{k}.temb_proj")
        h = h + dense(silu(inside), f"block.{k}.dense2")
    with torch.no_grad():
        got = network(torch.tensor(x, dtype=torch.float32), torch.tensor(t)).numpy()
    np.testing.assert_allclose(got, dense(silu(h), "dense_out"), rtol=1e-4, atol=1e-5)


def test_sees_the_time():
    torch.manual_seed(0)
    network = MLP(2, 2, channels=16)
    x = torch.randn(1, 2).expand(3, 2)
    a, b, c = network(x, torch.tensor([0, 1, 999]))
    assert not torch.allclose(a, b)
    assert not torch.allclose(b, c)


def test_can_fit_a_function_of_place_and_time():
    torch.manual_seed(0)
    network, g = MLP(2, 2, channels=64), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(200):
        x, t = torch.randn(128, 2, generator=g), torch.randint(0, 100, (128,), generator=g)
        turned = torch.stack([x[:, 1], -x[:, 0]], 1) * (t[:, None] > 50)
        loss = (network(x, t) - turned).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


@pytest.mark.parametrize("channels", [3, 2, 0])
def test_refuses_channels_without_a_time_embedding(channels):
    with pytest.raises(ValueError, match=f"channels={channels} must be even"):
        MLP(2, 2, channels=channels)
