"""Codecs beside the bound, against files that the tests write themselves."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.metrics import codecs


def drawn(n, channels, height, width):
    """Smooth pictures with a little noise, so that codecs have something to do."""
    draw = torch.Generator().manual_seed(n)
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    phase = torch.rand((n, channels, 1, 1), generator=draw) * 6
    values = 127 + 90 * torch.sin(y + 2 * x + phase) + 3 * torch.randn((n, channels, height, width), generator=draw)
    return values.clamp(0, 255).to(torch.uint8)


def file_of(array, format, **settings):
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, format, **settings)
    return file.getvalue()


def pixels(image):
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_what_png_and_webp_need(channels):
    images = drawn(7, channels, 8, 12)
    found = codecs.summary(codecs.rows(images))["lossless"]
    black = np.zeros((1, 1, channels), np.uint8)
    # Seven images are two rows of three and one of the rest.
    grid = np.concatenate([np.concatenate([pixels(images[3 * row + k]) for k in range(3)], 1) for row in (0, 1)])
    for name, settings in (("png", {"optimize": True}), ("webp", {"lossless": True, "quality": 100, "method": 6})):
        overhead = len(file_of(black, name, **settings))
        each = [len(file_of(pixels(image), name, **settings)) for image in images]
        together = sum(len(file_of(picture, name, **settings)) for picture in (grid, pixels(images[6])))
        dims = 8 * 12 * channels
        assert found[name]["overhead_bytes"] == overhead
        assert found[name]["each_with_overhead"] == pytest.approx(8 * sum(each) / 7 / dims)
        assert found[name]["each"] == pytest.approx(8 * (sum(each) / 7 - overhead) / dims)
        assert found[name]["together"] == pytest.approx(8 * (together - 2 * overhead) / 7 / dims)
        assert found[name]["value"] == min(found[name]["each"], found[name]["together"])


def test_noise_cannot_be_compressed_and_nothing_costs_nothing():
    noise = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for images, least, most in ((noise, 8, 8.5), (torch.full_like(noise, 77), 0, 0.3)):
        for each in codecs.summary(codecs.rows(images))["lossless"].values():
            assert least <= each["value"] <= most, each["title"]


@pytest.mark.parametrize(("height", "width"), [(7, 9), (9, 7)])
@pytest.mark.parametrize("n", [1, 2, 5, 16, 23])
def test_tiles_hold_every_pixel_once_and_nothing_else(n, height, width, monkeypatch):
    monkeypatch.setattr(codecs, "LONGEST", 25)  # at most two of 9 pixels and three of 7
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, height, width).contiguous()
    pictures = codecs._tiled(images)
    assert all(max(picture.shape) <= 25 for picture in pictures)
    assert len(pictures) <= n // 6 + 3  # whole ones, and rows of two or three
    held = np.concatenate([picture.reshape(-1) for picture in pictures])
    assert np.array_equal(np.bincount(held), np.full(n, 7 * 9 * 3))
    for picture in pictures:  # each image is in one piece
        high, wide = picture.shape[0] // height, picture.shape[1] // width
        blocks = picture.reshape(high, height, wide, width, 3).transpose(0, 2, 1, 3, 4).reshape(high * wide, -1)
        assert (blocks == blocks[:, :1]).all()


@pytest.mark.parametrize("faulty", ["not installed", "loses levels", "loses one level of one image"])
def test_a_codec_that_cannot_be_compared_is_left_out(faulty, monkeypatch):
    images = drawn(6, 3, 8, 8)
    jpeg, png = codecs.LOSSY["jpeg"], codecs.LOSSLESS["png"]
    if faulty == "loses one level of one image":
        decode = codecs.Codec.decode
        victim = png.encode(pixels(images[4]))
        monkeypatch.setattr(codecs.Codec, "decode", lambda self, content, mode: decode(self, content, mode) // (
            2 if content == victim else 1))  # fmt: skip
        added = png
    else:
        added = jpeg if faulty == "loses levels" else codecs.Codec("None", "NONE", "none", ())
    monkeypatch.setattr(codecs, "LOSSLESS", {"webp": codecs.LOSSLESS["webp"], "added": added})
    assert list(codecs.summary(codecs.rows(images))["lossless"]) == ["webp"]


def test_rate_and_distortion_of_jpeg():
    images = drawn(4, 3, 16, 16)
    found = codecs.summary(codecs.rows(images))["lossy"]
    at = codecs.QUALITIES.index(50)
    grid = np.concatenate([np.concatenate([pixels(images[2 * row + k]) for k in range(2)], 1) for row in (0, 1)])
    settings = {"quality": 50, "optimize": True, "progressive": True, "subsampling": "4:4:4"}
    content = file_of(grid, "jpeg", **settings)
    overhead = len(file_of(np.zeros((1, 1, 3), np.uint8), "jpeg", **settings))
    error = np.asarray(Image.open(io.BytesIO(content))).astype(float) - grid
    assert found["jpeg"]["quality"][at] == 50
    assert found["jpeg"]["rate_bits_per_dim"][at] == pytest.approx(8 * (len(content) - overhead) / grid.size)
    assert found["jpeg"]["rmse"][at] == pytest.approx(np.sqrt((error**2).mean()))
    at, overhead = codecs.QUALITIES.index(98), len(file_of(np.zeros((1, 1, 3), np.uint8), "webp", quality=98, method=6))
    assert overhead > len(file_of(np.zeros((1, 1, 3), np.uint8), "webp", method=6))  # at its own quality
    content = file_of(grid, "webp", quality=98, method=6)
    assert found["webp"]["rate_bits_per_dim"][at] == pytest.approx(8 * (len(content) - overhead) / grid.size)
    for curve in found.values():
        assert curve["rmse"][0] > curve["rmse"][-1]
        assert curve["rate_bits_per_dim"] == sorted(curve["rate_bits_per_dim"])


@pytest.mark.parametrize(("each", "together", "value"), [(3.0, 4.0, 3.0), (4.0, 2.0, 2.0)])
def test_the_value_of_a_codec_is_the_better_of_the_two_ways(each, together, value):
    """The bytes that a file holds whatever it shows do not count."""
    png = {"each": each, "each_with_overhead": 1.0, "together": together, "overhead_bytes": 67.0}
    parts = [png[part] for part in codecs.PARTS] + [torch.nan] * len(codecs.PARTS) * (len(codecs.LOSSLESS) - 1)
    row = torch.tensor([[*parts, *[1.0] * 2 * len(codecs.QUALITIES) * len(codecs.LOSSY)]])
    assert {name: about["value"] for name, about in codecs.summary(row)["lossless"].items()} == {"png": value}


def test_a_codec_is_installed_if_it_can_be_written_and_read():
    assert codecs.LOSSLESS["png"].installed
    assert not codecs.Codec("PDF", "PDF", "none", ()).installed  # Pillow writes it only


def test_what_codecs_take():
    assert codecs.take((1, 8, 8))
    assert codecs.take((3, 16, 32))
    assert not codecs.take((2, 8, 8))
    assert not codecs.take((2,))
