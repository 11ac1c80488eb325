"""The U-Net of Ho et al. 2020 (appendix B and its code), detail for detail.

Modules, and so the keys of the state_dict, have the original's names: level i of `down` and of `up` works at 1 / 2^i of
the resolution.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol, final, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddpm.networks.dropout import Dropout
from ddpm.networks.network import Network

FeatureMap = Float[Tensor, "b c h w"]
Embedding = Float[Tensor, "b d"]
Norm = Callable[[int], nn.GroupNorm]  # makes the norm of a number of channels
Resample = Callable[[Tensor], Tensor]  # makes a feature map half or twice as large


@runtime_checkable
class Told(Protocol):
    """What a network may be told of the examples of a batch."""

    @property
    def labels(self) -> Int[Tensor, " b"] | None:
        """A class of each in 0..K-1, or a negative number where it is not told."""

    @property
    def image(self) -> FeatureMap | None:
        """An image of each, of the height and width of x, 0 where it is not told."""


# Gain of the last layer of each residual branch and of the network: at first each branch adds (nearly) nothing.
NEAR_ZERO = 1e-5


@final
class UNet(Network):
    """network(x, t) with t counted from 0, for images [b, in_channels, height, width]; or network(x, t, told).

    Level i has channels * channel_mult[i] channels and `num_res_blocks` blocks on the way down, one more on the way up.
    Attention follows every block of the levels whose feature height is in `attention_resolutions` (the height decides
    for images that are not square, too), and stands once in the middle. With a `patch_size` of P the first level works
    at 1 / P of the resolution.

    The defaults of the arguments after `groups` are the paper's. Other values are those of Nichol & Dhariwal 2021, of
    Dhariwal & Nichol 2021 and of other networks whose weights can be read.

    Args:
        image_size: height and width.
        groups: groups of every GroupNorm.
        heads: number of heads of every attention.
        head_channels: channels of each head, instead of `heads`.
        scale_shift: the time scales and shifts the second norm of a block, instead of being added before it.
        symmetric_padding: the downsampling pads on all sides, instead of right and below only.
        frequency_shift: the frequencies of the time embedding end at 10000^-1 for 1, one step before it for 0.
        resblock_updown: levels are joined by residual blocks that resample within, instead of by convolutions.
        time_scale: factor by which t is multiplied; 1000 / T for Nichol & Dhariwal 2021.
        num_classes: each has an embedding that is added to the time's; an example whose class is not told gets none,
            so that the same weights are an unconditional network, too.
        condition_channels: of an image that the network is told, beside those of x.
        checkpointing: training keeps the outputs of blocks only, and computes what is inside a block again for its
            gradient (Chen et al. 2016): less memory, about a third more time, the same numbers.
        patch_size: the P x P pixels of a square are the channels of one position (Hoogeboom, Heek and Salimans 2023),
            so that large images take about 1 / P^2 of the time and memory.

    Raises:
        ValueError: sizes that do not fit each other; the message names one that does.
    """

    event_ndim = 3  # of the examples that it takes: channels, height, width
    takes = ("labels", "image")  # what it can be told
    outer = ("conv_in", "conv_out")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        image_size: Sequence[int] = (32, 32),
        groups: int = 32,
        heads: int = 1,
        head_channels: int | None = None,
        scale_shift: bool = False,
        norm_eps: float = 1e-6,
        symmetric_padding: bool = False,
        frequency_shift: int = 1,
        resblock_updown: bool = False,
        time_scale: float = 1.0,
        num_classes: int = 0,
        condition_channels: int = 0,
        checkpointing: bool = False,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        height, width = image_size
        _check_channels(channels, groups)
        if not (math.isfinite(norm_eps) and norm_eps > 0):
            raise ValueError(f"norm_eps={norm_eps} must be a positive number")
        if not frequency_shift < channels // 2:
            raise ValueError(f"frequency_shift={frequency_shift} must be less than half of channels={channels}")
        _check_size(height, width, len(channel_mult), patch_size)
        norm = partial(nn.GroupNorm, groups, eps=norm_eps)

        def block(ins: int, out: int, resample: Resample | None = None) -> ResBlock:
            return ResBlock(ins, out, 4 * channels, dropout, norm, scale_shift, resample)

        def halved(out: int) -> nn.Module:
            return block(out, out, half) if resblock_updown else Downsample(out, symmetric_padding)

        def doubled(out: int) -> nn.Module:
            return block(out, out, double) if resblock_updown else Upsample(out)

        def attention(out: int) -> Attention:
            return Attention(out, norm, out // head_channels if head_channels else heads)

        def attention_at(level: int, out: int) -> nn.Module:
            return attention(out) if height // patch_size >> level in attention_resolutions else nn.Identity()

        self.channels = channels
        self.frequency_shift, self.time_scale = frequency_shift, time_scale
        self.temb = TimeEmbedding(channels, 4 * channels)
        self.num_classes = num_classes
        self.label_emb = nn.Embedding(num_classes, 4 * channels) if num_classes else None
        self.condition_channels = condition_channels
        self.to_patches = nn.PixelUnshuffle(patch_size) if patch_size > 1 else nn.Identity()
        self.from_patches = nn.PixelShuffle(patch_size) if patch_size > 1 else nn.Identity()
        self.conv_in = conv((in_channels + condition_channels) * patch_size**2, channels, 3)
        widths = [channels * mult for mult in channel_mult]
        lowest = len(widths) - 1
        h, skips = channels, [channels]  # channel counts that follow the forward pass

        self.down = nn.ModuleList()
        for level, out in enumerate(widths):
            blocks = [block(h if i == 0 else out, out) for i in range(num_res_blocks)]
            attentions = [attention_at(level, out) for _ in blocks]
            self.down.append(Down(blocks, attentions, halved(out) if level < lowest else None, checkpointing))
            h, skips = out, skips + [out] * (num_res_blocks + (level < lowest))

        self.mid = Middle(block(h, h), attention(h), block(h, h))

        up = []
        for level, out in reversed(list(enumerate(widths))):
            blocks = [block((h if i == 0 else out) + skips.pop(), out) for i in range(num_res_blocks + 1)]
            attentions = [attention_at(level, out) for _ in blocks]
            up.append(Up(blocks, attentions, doubled(out) if level > 0 else None, checkpointing))
            h = out
        self.up = nn.ModuleList(reversed(up))

        self.norm_out = norm(h)
        self.conv_out = conv(h, out_channels * patch_size**2, 3, gain=NEAR_ZERO)

    def forward(self, x: FeatureMap, t: Int[Tensor, " b"], told: Told | None = None) -> Float[Tensor, "b out h w"]:
        embedding = self.temb(time_embedding(t, self.channels, self.frequency_shift, self.time_scale))
        if self.label_emb is not None:
            if told is None or told.labels is None:
                raise TypeError(
                    "a network with classes is called with the labels of its examples, if only dropped ones"
                )
            known = (told.labels >= 0)[:, None]
            embedding = embedding + torch.where(known, self.label_emb(told.labels.clamp(min=0)), 0)
        if self.condition_channels:
            if told is None or told.image is None:
                raise TypeError("a network that is told an image is called with one, if only of 0 throughout")
            x = torch.cat([x, told.image], 1)
        temb = F.silu(embedding)  # every block would begin with this silu
        h = self.conv_in(self.to_patches(x))
        skips = [h]
        for down in self.down:
            h = down(h, temb, skips)
        h = self.mid(h, temb)
        for up in reversed(self.up):
            h = up(h, temb, skips)
        out: Tensor = self.from_patches(self.conv_out(F.silu(self.norm_out(h))))
        return out


def time_embedding(t: Int[Tensor, " b"], dim: int, shift: int = 1, scale: float = 1.0) -> Embedding:
    """The sinusoidal embedding [sin(t f), cos(t f)] with dim / 2 frequencies f from `scale` down to 1e-4 `scale`.

    Both ends are included for `shift` 1; for `shift` 0 the last frequency is one step before 1e-4 `scale`.
    """
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - shift)))
    angles = t[:, None] * (scale * frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoidal embedding of t."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([dense(dim, out), dense(out, out)])

    def forward(self, embedding: Embedding) -> Float[Tensor, "b out"]:
        out: Tensor = self.dense[1](F.silu(self.dense[0](embedding)))
        return out


class Down(nn.Module):
    """A level on the way down; pushes the outputs of its blocks and of the downsampling on `skips`."""

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        attentions: Iterable[nn.Module],
        downsample: nn.Module | None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.block, self.attn = nn.ModuleList(blocks), nn.ModuleList(attentions)
        self.downsample, self.checkpointing = downsample, checkpointing

    def forward(self, h: FeatureMap, temb: Embedding, skips: list[Tensor]) -> Tensor:
        for block, attn in zip(self.block, self.attn, strict=True):
            h = _attended(block, attn, h, temb, again=self.checkpointing)
            skips.append(h)
        if self.downsample is not None:
            h = self.downsample(h, temb)
            skips.append(h)
        return h


class Middle(nn.Module):
    """The lowest level: a block, an attention, a block."""

    def __init__(self, block_1: nn.Module, attn_1: nn.Module, block_2: nn.Module) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = block_1, attn_1, block_2

    def forward(self, h: FeatureMap, temb: Embedding) -> FeatureMap:
        out: Tensor = self.block_2(self.attn_1(self.block_1(h, temb)), temb)
        return out


class Up(nn.Module):
    """A level on the way up; each of its blocks takes one of `skips`."""

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        attentions: Iterable[nn.Module],
        upsample: nn.Module | None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.block, self.attn = nn.ModuleList(blocks), nn.ModuleList(attentions)
        self.upsample, self.checkpointing = upsample, checkpointing

    def forward(self, h: Tensor, temb: Embedding, skips: list[Tensor]) -> Tensor:
        for block, attn in zip(self.block, self.attn, strict=True):
            h = _attended(block, attn, torch.cat([h, skips.pop()], dim=1), temb, again=self.checkpointing)
        return h if self.upsample is None else self.upsample(h, temb)


def _attended(block: nn.Module, attn: nn.Module, h: Tensor, temb: Embedding, *, again: bool) -> Tensor:
    """attn(block(h, temb)), of which nothing inside is kept for the gradient where it is computed `again`."""
    if again and torch.is_grad_enabled():
        out: Tensor = checkpoint(_through, block, attn, h, temb, use_reentrant=False)
        return out
    return _through(block, attn, h, temb)


def _through(block: nn.Module, attn: nn.Module, h: Tensor, temb: Embedding) -> Tensor:
    out: Tensor = attn(block(h, temb))
    return out


class ResBlock(nn.Module):
    """A residual block of two convolutions, with the time added, or scaled and shifted by, in between.

    Where it resamples, it does so before the first convolution, and beside the branch.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        dropout: float,
        norm: Norm,
        scale_shift: bool = False,
        resample: Resample | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.norm1 = norm(channels)
        self.conv1 = conv(channels, out, 3)
        self.temb_proj = dense(embedding, 2 * out if scale_shift else out)
        self.norm2 = norm(out)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(out, out, 3, gain=NEAR_ZERO)
        self.nin_shortcut = nn.Identity() if channels == out else conv(channels, out, 1)

    def forward(self, x: FeatureMap, temb: Embedding) -> Float[Tensor, "b out height width"]:
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv1(h)
        from_time = self.temb_proj(temb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = from_time.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + from_time)
        h = self.conv2(self.dropout(F.silu(h)))
        out: Tensor = self.nin_shortcut(x) + h
        return out


class Attention(nn.Module):
    """Self-attention over all positions, scaled by (channels of a head)^-1/2; one head in the paper."""

    def __init__(self, channels: int, norm: Norm, heads: int = 1) -> None:
        super().__init__()
        if heads < 1 or channels % heads != 0:
            raise ValueError(f"{channels} channels of an attention do not divide into {heads} heads")
        self.heads = heads
        self.norm = norm(channels)
        self.q, self.k, self.v = (conv(channels, channels, 1) for _ in range(3))
        self.proj_out = conv(channels, channels, 1, gain=NEAR_ZERO)

    def forward(self, x: FeatureMap) -> FeatureMap:
        h = self.norm(x)
        q, k, v = (
            layer(h).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for layer in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        out: Tensor = x + self.proj_out(h)
        return out


def half(x: FeatureMap) -> Float[Tensor, "b c h//2 w//2"]:
    """The means over squares of two by two."""
    return F.avg_pool2d(x, 2)


def double(x: FeatureMap) -> Float[Tensor, "b c 2*h 2*w"]:
    """Each value as a square of two by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Downsample(nn.Module):
    """A convolution of stride 2 that pads right and below only, as TensorFlow's SAME does, unless `symmetric`."""

    def __init__(self, channels: int, symmetric: bool = False) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if symmetric else (0, 1, 0, 1)
        self.conv = conv(channels, channels, 3, stride=2, padding=0)

    def forward(self, x: FeatureMap, temb: Embedding | None = None) -> Float[Tensor, "b c h//2 w//2"]:
        out: Tensor = self.conv(F.pad(x, self.padding))
        return out


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by two, then a 3x3 convolution.

    The upsampling is a transposed convolution with a 2x2 kernel of ones, and both together are one transposed
    convolution with a 4x4 kernel: 4 products instead of 9 for each output and channel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 3)
        # On one axis: which weights of the 3-kernel make up each weight of the 4-kernel, in reversed order.
        twice = (torch.eye(4)[:3] + torch.eye(4)[1:]).flip(1)
        self.register_buffer("spread", torch.einsum("uy,vx->uvyx", twice, twice), persistent=False)

    def forward(self, x: FeatureMap, temb: Embedding | None = None) -> Float[Tensor, "b c 2*h 2*w"]:
        kernel = torch.einsum("oiuv,uvyx->ioyx", self.conv.weight, self.spread)
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)


def conv(
    channels: int, out: int, size: int, *, stride: int = 1, padding: int | None = None, gain: float = 1.0
) -> nn.Conv2d:
    """A convolution with the original's initialisation, by default padded so that the size stays."""
    layer = nn.Conv2d(channels, out, size, stride, size // 2 if padding is None else padding)
    _initialise(layer, gain)
    return layer


def dense(channels: int, out: int) -> nn.Linear:
    """A linear layer with the original's initialisation."""
    layer = nn.Linear(channels, out)
    _initialise(layer, 1.0)
    return layer


def _initialise(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    """Set Xavier-uniform weights and zero biases, as the original does for every layer."""
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _check_channels(channels: int, groups: int) -> None:
    if channels % groups != 0 or channels % 2 != 0 or channels < 4:
        unit = math.lcm(groups, 4)
        raise ValueError(
            f"channels={channels} must be even, at least 4 and divisible by groups={groups}: "
            f"use channels={max(1, round(channels / unit)) * unit}, or other groups"
        )


def _check_size(height: int, width: int, levels: int, patch_size: int) -> None:
    unit = patch_size * 2 ** (levels - 1)
    if height % unit != 0 or width % unit != 0:
        smaller = "x".join(str(max(1, side // unit) * unit) for side in (height, width))
        larger = "x".join(str(-(-side // unit) * unit) for side in (height, width))
        nearest = larger if smaller == larger else f"{smaller} or {larger}"
        halve = f"divide into patches of {patch_size}x{patch_size} that halve" if patch_size > 1 else "halve"
        raise ValueError(
            f"image size {height}x{width} does not {halve} {levels - 1} times, as {levels} levels need: "
            f"use {nearest}, or fewer levels (channel_mult)"
        )
