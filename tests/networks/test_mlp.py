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
