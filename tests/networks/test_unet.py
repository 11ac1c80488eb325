import itertools
import math
import re
from functools import partial
from types import SimpleNamespace

import pytest
import reference
import torch
from diffusers import UNet2DModel
from peer_networks import randomise
from torch import nn

from ddpm.networks.unet import Attention, Downsample, ResBlock, UNet, Upsample, time_embedding


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def to_diffusers(key, levels):
    """Our key (the original's) under diffusers' name for it."""

    def up(match):
        return f"up_blocks.{levels - 1 - int(match[1])}."  # diffusers counts up_blocks from the lowest resolution

    renames = [
        (r"^temb\.dense\.0", "time_embedding.linear_1"),
        (r"^temb\.dense\.1", "time_embedding.linear_2"),
        (r"^down\.(\d+)\.", r"down_blocks.\1."),
        (r"^up\.(\d+)\.", up),
        (r"^mid\.block_1", "mid_block.resnets.0"),
        (r"^mid\.block_2", "mid_block.resnets.1"),
        (r"^mid\.attn_1", "mid_block.attentions.0"),
        (r"\.block\.", ".resnets."),
        (r"\.attn\.", ".attentions."),
        (r"\.temb_proj\.", ".time_emb_proj."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.downsample\.", ".downsamplers.0."),
        (r"\.upsample\.", ".upsamplers.0."),
        (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"\.(q|k|v)\.", r".to_\1."),
        (r"\.proj_out\.", ".to_out.0."),
        (r"^norm_out", "conv_norm_out"),
    ]
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def diffusers_twin(network, sample_size, channel_mult, attend):
    """UNet2DModel as in google/ddpm-cifar10-32, with our weights."""
    down = tuple("AttnDownBlock2D" if yes else "DownBlock2D" for yes in attend)
    up = tuple("AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attend))
    twin = UNet2DModel(
        sample_size=sample_size,
        in_channels=network.conv_in.in_channels,
        out_channels=network.conv_out.out_channels,
        block_out_channels=tuple(network.channels * mult for mult in channel_mult),
        down_block_types=down,
        up_block_types=up,
        layers_per_block=len(network.down[0].block),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=network.norm_out.num_groups,
        attention_head_dim=None,
    )
    shapes = {key: value.shape for key, value in twin.state_dict().items()}
    ours = {to_diffusers(key, len(channel_mult)): value for key, value in network.state_dict().items()}
    assert ours.keys() == shapes.keys()
    twin.load_state_dict({key: value.reshape(shapes[key]) for key, value in ours.items()})
    return twin.eval()


@pytest.mark.long
def test_same_function_as_diffusers_in_the_cifar10_configuration():
    network = UNet(3, 3).eval()
    randomise(network, seed=0)
    twin = diffusers_twin(network, 32, (1, 2, 2, 2), (False, True, False, False))
    x, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([7, 999])
    with torch.no_grad():
        want = twin(x, t).sample
        assert want.std() > 0.1
        assert (network(x, t) - want).norm() < 1e-5 * want.norm()


def test_same_gradients_as_diffusers_at_another_shape():
    network = UNet(1, 2, 16, (1, 2, 2), 1, (4,), dropout=0.0, image_size=(8, 12), groups=8)
    randomise(network, seed=2)
    twin = diffusers_twin(network, 8, (1, 2, 2), (False, True, False))
    x, t = torch.randn(3, 1, 8, 12, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 10, 500])
    network(x, t).square().sum().backward()
    twin(x, t).sample.square().sum().backward()
    theirs = dict(twin.named_parameters())
    scale = max(float(parameter.grad.norm()) for parameter in theirs.values())
    for key, parameter in network.named_parameters():
        want = theirs[to_diffusers(key, 3)].grad
        error = (parameter.grad.reshape(want.shape) - want).norm()
        assert error < 1e-4 * want.norm() + 1e-6 * scale, key  # of the keys' bias it is 0, but for rounding


PUBLISHED = [
    ((3, 3, 128, (1, 2, 2, 2)), (32, 32), 35_746_307),  # CIFAR-10
    ((3, 6, 128, (1, 2, 2, 2)), (32, 32), 35_749_766),  # and with a learned variance
    ((3, 3, 128, (1, 1, 2, 2, 4, 4)), (256, 256), 113_673_219),  # LSUN and CelebA-HQ
    ((3, 3, 192, (1, 1, 2, 2, 4, 4)), (256, 256), 255_677_955),  # the large model for LSUN Bedroom
]


@pytest.mark.parametrize(("arguments", "image_size", "count"), PUBLISHED)
def test_has_the_published_number_of_parameters(arguments, image_size, count):
    with torch.device("meta"):
        network = UNet(*arguments, image_size=image_size)
    assert num_parameters(network) == count


def test_has_the_original_s_tensors():
    with torch.device("meta"):
        state = UNet(3, 3).state_dict()
    assert len(state) == 328
    assert state["down.1.attn.0.q.weight"].shape == (256, 256, 1, 1)
    assert state["up.0.block.0.nin_shortcut.weight"].shape == (128, 384, 1, 1)
    counts = {}
    for key, value in state.items():
        part = ".".join(key.split(".")[: 2 if key.startswith(("down", "up")) else 1])
        counts[part] = counts.get(part, 0) + value.numel()
    assert counts == {
        "temb": 328_704,
        "conv_in": 3_584,
        **{"down.0": 870_272, "down.1": 3_480_320, "down.2": 3_215_104, "down.3": 2_625_024},
        "mid": 1_312_512 + 263_680 + 1_312_512,
        **{"up.0": 1_789_952, "up.1": 7_155_712, "up.2": 6_692_608, "up.3": 6_692_608},
        "norm_out": 256,
        "conv_out": 3_459,
    }


def test_time_embedding_anchors():
    at_0, at_1, at_999 = time_embedding(torch.tensor([0, 1, 999]), 128)
    assert at_0.tolist() == [0.0] * 64 + [1.0] * 64
    torch.testing.assert_close(at_1[:4], torch.tensor([0.841471, 0.760439, 0.679056, 0.601156]), rtol=0, atol=1e-6)
    assert at_1[63].item() == pytest.approx(1e-4, rel=1e-5)
    got = at_999[:4], at_999[63].item(), at_999[127].item()
    torch.testing.assert_close(got[0], torch.tensor([-0.0264608, 0.7267159, -0.9215657, -0.2718008]), rtol=0, atol=1e-4)
    assert got[1:] == (pytest.approx(0.0997339, abs=1e-5), pytest.approx(0.9950141, abs=1e-5))


@pytest.mark.parametrize("t", [0, 1, 17, 999])
def test_time_embedding_is_the_literal_transcription(t):
    want = torch.tensor(reference.time_embedding(t, 64))
    torch.testing.assert_close(time_embedding(torch.tensor([t]), 64)[0], want, rtol=0, atol=1e-4)


def test_initialisation_is_xavier_and_nearly_zero_at_the_end_of_each_branch():
    torch.manual_seed(0)
    network = UNet(3, 3, 64)
    modules = dict(network.named_modules())
    last = [name for name in modules if name.endswith(("conv2", "proj_out", "conv_out"))]
    assert len(last) == 22 + 6 + 1
    for name, layer in modules.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = math.prod(layer.weight.shape[2:])
            limit = (6 / (area * sum(layer.weight.shape[:2]))) ** 0.5 * (1e-5 if name in last else 1)
            assert layer.weight.abs().max().item() == pytest.approx(limit, rel=0.03)
            assert layer.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.1)
            assert not layer.bias.any()
    x = torch.randn(2, 3, 32, 32)
    assert network(x, torch.tensor([0, 999])).abs().max() < 1e-3


def test_group_norm_is_the_original_s():
    with torch.device("meta"):
        norms = [module for module in UNet(3, 3).modules() if isinstance(module, nn.GroupNorm)]
    assert {(layer.num_groups, layer.eps, layer.affine) for layer in norms} == {(32, 1e-6, True)}


def test_downsampling_pads_right_and_below():
    layer, x = Downsample(1), torch.arange(16.0).reshape(1, 1, 4, 4)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 0, 0] = 1  # the window's upper left corner: nothing is padded there
        assert layer(x).flatten().tolist() == [0, 2, 8, 10]
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 2, 2] = 1
        assert layer(x).flatten().tolist() == [10, 0, 0, 0]


def attention_in(network):
    return [name for name, module in network.named_modules() if isinstance(module, Attention)]


def test_attention_stands_where_the_height_says():
    with torch.device("meta"):
        wide = UNet(3, 3, 32, image_size=(32, 64), attention_resolutions=(16,))
        tall = UNet(3, 3, 32, image_size=(64, 32), attention_resolutions=(16,))
        nowhere = UNet(3, 3, 32, image_size=(32, 32), attention_resolutions=())
    around = ["mid.attn_1"]
    assert attention_in(wide) == [f"down.1.attn.{i}" for i in range(2)] + around + [f"up.1.attn.{i}" for i in range(3)]
    assert attention_in(tall) == [f"down.2.attn.{i}" for i in range(2)] + around + [f"up.2.attn.{i}" for i in range(3)]
    assert attention_in(nowhere) == around


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (4, 20), (28, 28)])
@pytest.mark.parametrize(("channels_in", "channels_out"), [(1, 1), (3, 6), (4, 4)])
def test_takes_any_channels_and_any_size_that_halves(size, channels_in, channels_out):
    network = UNet(channels_in, channels_out, 8, (1, 2, 2), 1, (4,), image_size=size, groups=4)
    x = torch.randn(2, channels_in, *size)
    assert network(x, torch.tensor([0, 999])).shape == (2, channels_out, *size)


def test_dropout_acts_in_training_only():
    network = UNet(1, 1, 8, (1, 2), 1, (), dropout=0.5, image_size=(4, 4), groups=4)
    randomise(network, seed=0).train()
    x, t = torch.randn(2, 1, 4, 4), torch.tensor([3, 4])
    assert not torch.equal(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_block_by_hand(scale_shift):
    """With what dropout made of its input, which is the second convolution's only change in training."""
    block = ResBlock(8, 12, 6, 0.5, partial(nn.GroupNorm, 4, eps=1e-6), scale_shift).double()
    randomise(block, seed=0).train()
    g = torch.Generator().manual_seed(1)
    x, temb = (torch.randn(shape, dtype=torch.float64, generator=g) for shape in ((2, 8, 5, 3), (2, 6)))
    dropped = []
    block.dropout.register_forward_hook(lambda module, args, out: dropped.append((*args, out)))
    got = block(x, temb)

    p = dict(block.named_parameters())
    silu, conv2d = nn.functional.silu, nn.functional.conv2d

    def norm(h, name):
        groups = h.unflatten(1, (4, -1))
        mean = groups.mean((2, 3, 4), keepdim=True)
        std = ((groups - mean).square().mean((2, 3, 4), keepdim=True) + 1e-6).sqrt()
        gain, bias = (p[f"{name}.{which}"][:, None, None] for which in ("weight", "bias"))
        return ((groups - mean) / std).flatten(1, 2) * gain + bias

    h = conv2d(silu(norm(x, "norm1")), p["conv1.weight"], p["conv1.bias"], padding=1)
    time = (temb @ p["temb_proj.weight"].T + p["temb_proj.bias"])[..., None, None]
    h = norm(h, "norm2") * (1 + time[:, :12]) + time[:, 12:] if scale_shift else norm(h + time, "norm2")
    (into, out), *more = dropped
    assert not more
    torch.testing.assert_close(into, silu(h))
    kept = out != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(out, torch.where(kept, 2 * silu(h), 0))
    h = conv2d(out, p["conv2.weight"], p["conv2.bias"], padding=1)
    torch.testing.assert_close(got, conv2d(x, p["nin_shortcut.weight"], p["nin_shortcut.bias"]) + h)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (28, 28)}, "image size 28x28 does not halve 3 times.*use 24x24 or 32x32"),
        ({"image_size": (33, 64)}, "use 32x64 or 40x64"),
        ({"image_size": (4, 4)}, "use 8x8, or fewer"),
        ({"image_size": (64, 40), "patch_size": 4}, "into patches of 4x4 that halve 3 times.*use 64x32 or 64x64"),
        ({"channels": 48}, "divisible by groups=32: use channels=64, or"),
        ({"channels": 20, "groups": 32}, "use channels=32"),
        ({"channels": 15, "groups": 5}, "must be even.*use channels=20"),
        ({"channels": 2, "groups": 1}, "at least 4.*use channels=4"),
    ],
)
def test_refuses_what_does_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        UNet(3, 3, **settings)


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 2)])
def test_upsampling_is_the_convolution_of_the_doubled_image(size):
    layer = Upsample(6).double()
    randomise(layer, 0)
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    doubled = layer.conv(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(layer(x), doubled)
    inputs = [x, layer.conv.weight, layer.conv.bias]
    ours, theirs = (torch.autograd.grad(out.square().sum(), inputs) for out in (layer(x), doubled))
    torch.testing.assert_close(ours, theirs)


def test_a_class_moves_the_time_s_embedding_and_none_leaves_it():
    """By hand: the embedding of a class is added to that of the time, whose last layer has a bias to add it to."""
    small = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "image_size": (8, 8), "groups": 4}
    torch.manual_seed(0)
    plain, told = UNet(1, 2, **small).eval(), UNet(1, 2, **small, num_classes=3).eval()
    assert told.state_dict().keys() - plain.state_dict().keys() == {"label_emb.weight"}
    assert plain.state_dict().keys() <= told.state_dict().keys()
    randomise(told, seed=0)
    weights = told.state_dict()
    embeddings = weights.pop("label_emb.weight")
    plain.load_state_dict(weights)
    x, t = torch.randn(4, 1, 8, 8), torch.tensor([0, 3, 3, 50])
    out = told(x, t, SimpleNamespace(labels=torch.tensor([2, -1, 0, 1]), image=None))
    bias = plain.temb.dense[1].bias.detach().clone()
    for k, label in enumerate((2, -1, 0, 1)):
        with torch.no_grad():
            plain.temb.dense[1].bias.copy_(bias + (embeddings[label] if label >= 0 else 0))
        torch.testing.assert_close(out[k], plain(x, t)[k])
    with torch.no_grad():
        plain.temb.dense[1].bias.copy_(bias)
    assert torch.equal(told(x, t, SimpleNamespace(labels=torch.full((4,), -1), image=None)), plain(x, t))
    assert (out[0] - plain(x, t)[0]).norm() > 0.01 * out[0].norm()
    with pytest.raises(TypeError, match="is called with"):
        told(x, t)


def test_an_image_that_is_told_is_more_channels_of_the_input():
    small = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "image_size": (8, 8), "groups": 4}
    told, wide = UNet(1, 1, **small, condition_channels=2).eval(), UNet(3, 1, **small).eval()
    assert told.state_dict().keys() == wide.state_dict().keys()
    randomise(told, seed=0)
    wide.load_state_dict(told.state_dict())
    x, image, t = torch.randn(2, 1, 8, 8), torch.randn(2, 2, 8, 8), torch.tensor([0, 50])
    assert torch.equal(told(x, t, SimpleNamespace(labels=None, image=image)), wide(torch.cat([x, image], 1), t))
    with pytest.raises(TypeError, match="told an image"):
        told(x, t)


@pytest.mark.parametrize("P", [2, 3])
def test_the_pixels_of_a_patch_are_the_channels_of_one_position(P):
    """The network without patches gives the same, for images that are rearranged by hand."""
    small = {"channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_resolutions": (2,), "groups": 4}
    in_patches = UNet(3, 2, **small, image_size=(4 * P, 8 * P), condition_channels=1, patch_size=P).eval()
    plain = UNet(4 * P**2, 2 * P**2, **small, image_size=(4, 8)).eval()
    assert in_patches.state_dict().keys() == plain.state_dict().keys()
    randomise(in_patches, seed=0)
    plain.load_state_dict(in_patches.state_dict())
    g = torch.Generator().manual_seed(1)
    x, image = (torch.randn(2, channels, 4 * P, 8 * P, generator=g) for channels in (3, 1))
    t = torch.tensor([0, 50])
    whole = torch.cat([x, image], 1)
    rearranged = torch.empty(2, 4 * P**2, 4, 8)
    for c, i, j in itertools.product(range(4), range(P), range(P)):
        rearranged[:, c * P**2 + i * P + j] = whole[:, c, i::P, j::P]
    out, expected = in_patches(x, t, SimpleNamespace(labels=None, image=image)), plain(rearranged, t)
    assert out.shape == (2, 2, 4 * P, 8 * P)
    for c, i, j in itertools.product(range(2), range(P), range(P)):
        torch.testing.assert_close(out[:, c, i::P, j::P], expected[:, c * P**2 + i * P + j])


def test_checkpointing_keeps_less_and_computes_the_same():
    def gradients(checkpointing):
        torch.manual_seed(0)
        network = UNet(3, 3, 16, (1, 2), 2, (4,), 0.3, (8, 8), groups=8, checkpointing=checkpointing)
        randomise(network, seed=0).train()
        x, t = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 9, 99, 999])
        kept = []
        torch.manual_seed(2)  # of dropout
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x
        ):
            out = network(x, t)
        out.square().sum().backward()
        return sum(kept), [out, *(weights.grad for weights in network.parameters())]

    (much, plain), (little, again) = gradients(False), gradients(True)
    assert little < 0.5 * much
    for one, other in zip(plain, again, strict=True):
        assert torch.equal(one, other)
