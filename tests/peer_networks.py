"""Networks of other codebases, small, from their description alone: their state_dicts' names and conventions."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def randomise(network, seed):
    """The network in evaluation mode, every weight random and of a size that matters, the nearly-zero ones, too."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "timembedding.0" in name:
                continue
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
            parameter.copy_(torch.randn(parameter.shape, generator=g) / fan_in**0.5 + (parameter.ndim == 1))
    return network.eval()


def frequencies(half):
    return torch.tensor([10000 ** (-i / half) for i in range(half)])


class Improved(nn.Module):
    """improved-diffusion's U-Net; with `updown` guided-diffusion's, whose blocks resample."""

    def __init__(
        self,
        channels,
        mult,
        blocks,
        attending,
        heads=1,
        scale_shift=False,
        learn_sigma=False,
        classes=None,
        updown=False,
    ):
        super().__init__()

        def joint(width, factor, plain):
            return ImprovedBlock(width, width, temb, scale_shift, factor) if updown else plain(width)

        if classes:
            self.label_emb = nn.Embedding(classes, 4 * channels)
        self.channels, self.half = channels, channels // 2
        width, temb = channels, 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, temb), nn.SiLU(), nn.Linear(temb, temb))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, channels, 3, padding=1)])])
        skips = [channels]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                layers = [ImprovedBlock(width, factor * channels, temb, scale_shift)]
                width = factor * channels
                layers += [ImprovedAttention(width, heads)] if level in attending else []
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(width)
            if level < len(mult) - 1:
                self.input_blocks.append(nn.ModuleList([joint(width, 0.5, ImprovedDown)]))
                skips.append(width)
        self.middle_block = nn.ModuleList(
            [
                ImprovedBlock(width, width, temb, scale_shift),
                ImprovedAttention(width, heads),
                ImprovedBlock(width, width, temb, scale_shift),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(mult))):
            for i in range(blocks + 1):
                layers = [ImprovedBlock(width + skips.pop(), mult[level] * channels, temb, scale_shift)]
                width = mult[level] * channels
                layers += [ImprovedAttention(width, heads)] if level in attending else []
                layers += [joint(width, 2, ImprovedUp)] if level > 0 and i == blocks else []
                self.output_blocks.append(nn.ModuleList(layers))
        out = nn.Conv2d(width, 6 if learn_sigma else 3, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), out)

    def forward(self, x, t, y=None):
        angles = t[:, None].float() * frequencies(self.half)
        emb = self.time_embed(torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1))
        if y is not None:
            emb = emb + self.label_emb(y)

        def through(layers, h):
            for layer in layers:
                h = layer(h, emb) if isinstance(layer, ImprovedBlock) else layer(h)
            return h

        skips = []
        for layers in self.input_blocks:
            x = through(layers, x)
            skips.append(x)
        x = through(self.middle_block, x)
        for layers in self.output_blocks:
            x = through(layers, torch.cat([x, skips.pop()], dim=1))
        return self.out(x)


class ImprovedBlock(nn.Module):
    def __init__(self, ins, out, temb, scale_shift, factor=1):
        super().__init__()
        self.scale_shift, self.factor = scale_shift, factor
        self.in_layers = nn.Sequential(nn.GroupNorm(32, ins), nn.SiLU(), nn.Conv2d(ins, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(temb, 2 * out if scale_shift else out))
        last = nn.Conv2d(out, out, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(0.1), last)
        self.skip_connection = nn.Identity() if ins == out else nn.Conv2d(ins, out, 1)

    def forward(self, x, emb):
        h, e = self.in_layers[:2](x), self.emb_layers(emb)[..., None, None]
        if self.factor == 2:
            h, x = (each.repeat_interleave(2, 2).repeat_interleave(2, 3) for each in (h, x))
        elif self.factor == 0.5:
            h, x = (each.unflatten(3, (-1, 2)).mean(4).unflatten(2, (-1, 2)).mean(3) for each in (h, x))
        h = self.in_layers[2](h)
        if self.scale_shift:
            half = e.shape[1] // 2
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + e[:, :half]) + e[:, half:])
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(x) + h


class ImprovedAttention(nn.Module):
    """One convolution for q, k and v, its rows head after head, in each the q, then the k, then the v."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        flat = x.flatten(2)
        found = []
        for head in self.qkv(self.norm(flat)).chunk(self.heads, dim=1):
            q, k, v = head.chunk(3, dim=1)
            weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1]), dim=-1)
            found.append(torch.einsum("bts,bcs->bct", weight, v))
        return (flat + self.proj_out(torch.cat(found, dim=1))).reshape(x.shape)


class ImprovedDown(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class ImprovedUp(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class W86763777(nn.Module):
    """w86763777/pytorch-ddpm's U-Net."""

    def __init__(self, T, channels, mult, blocks, attending):
        super().__init__()
        width, temb = channels, 4 * channels
        self.time_embedding = nn.Module()
        self.time_embedding.timembedding = nn.Sequential(
            nn.Embedding(T, channels), nn.Linear(channels, temb), nn.SiLU(), nn.Linear(temb, temb)
        )
        angles = torch.arange(T)[:, None] * frequencies(channels // 2)
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(T, channels)
        self.time_embedding.timembedding[0].weight = nn.Parameter(table)
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.downblocks, self.upblocks, skips = nn.ModuleList(), nn.ModuleList(), [channels]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                self.downblocks.append(W86Block(width, factor * channels, temb, level in attending))
                width = factor * channels
                skips.append(width)
            if level < len(mult) - 1:
                self.downblocks.append(W86Resample(width, stride=2))
                skips.append(width)
        self.middleblocks = nn.ModuleList([W86Block(width, width, temb, True), W86Block(width, width, temb, False)])
        for level in reversed(range(len(mult))):
            for _ in range(blocks + 1):
                self.upblocks.append(W86Block(width + skips.pop(), mult[level] * channels, temb, level in attending))
                width = mult[level] * channels
            if level > 0:
                self.upblocks.append(W86Resample(width, stride=1))
        self.tail = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x, t):
        temb = self.time_embedding.timembedding(t)
        h = self.head(x)
        skips = [h]
        for layer in self.downblocks:
            h = layer(h, temb)
            skips.append(h)
        for layer in self.middleblocks:
            h = layer(h, temb)
        for layer in self.upblocks:
            h = layer(torch.cat([h, skips.pop()], dim=1) if isinstance(layer, W86Block) else h, temb)
        return self.tail(h)


class W86Block(nn.Module):
    def __init__(self, ins, out, temb, attends):
        super().__init__()
        self.block1 = nn.Sequential(nn.GroupNorm(32, ins), nn.SiLU(), nn.Conv2d(ins, out, 3, padding=1))
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(temb, out))
        last = nn.Conv2d(out, out, 3, padding=1)
        self.block2 = nn.Sequential(nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(0.1), last)
        self.shortcut = nn.Identity() if ins == out else nn.Conv2d(ins, out, 1)
        self.attn = W86Attention(out) if attends else nn.Identity()

    def forward(self, x, temb):
        h = self.block2(self.block1(x) + self.temb_proj(temb)[..., None, None])
        return self.attn(h + self.shortcut(x))


class W86Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.group_norm = nn.GroupNorm(32, channels)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        h = self.group_norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.proj_q, self.proj_k, self.proj_v))
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) * x.shape[1] ** -0.5, dim=-1)
        return x + self.proj(torch.einsum("bts,bcs->bct", weight, v).reshape(x.shape))


class W86Resample(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.main = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(self, x, temb):
        return self.main(x if self.main.stride == (2, 2) else F.interpolate(x, scale_factor=2, mode="nearest"))
