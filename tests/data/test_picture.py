import io

import numpy as np
import pytest
from PIL import Image

from ddpm.data.dataset import DataError
from ddpm.data.picture import PictureTransform

WHITE = (255, 255, 255)
GRAY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def decode(content: bytes, channels: int = 3, size: tuple[int, int] = (8, 8), background=WHITE) -> np.ndarray:
    pixels = PictureTransform(channels, *size, background)(content)
    assert pixels.shape == (channels, *size)
    assert pixels.flags.c_contiguous
    return pixels.transpose(1, 2, 0)


def luma(colour: np.ndarray) -> np.ndarray:
    return colour.astype(float) @ (0.299, 0.587, 0.114)


@pytest.mark.parametrize(
    ("form", "how"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("PPM", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_colour_is_exact(form, how):
    content = encoded(Image.fromarray(COLOUR), form, **how)
    assert np.array_equal(decode(content), COLOUR)
    assert np.abs(decode(content, channels=1)[..., 0] - luma(COLOUR)).max() <= 0.51


def test_jpeg():
    smooth = np.broadcast_to(np.array([[[200, 100, 50]]], np.uint8), (16, 16, 3))
    assert np.abs(decode(encoded(Image.fromarray(smooth), "JPEG"), size=(16, 16)).astype(int) - smooth).max() <= 3


def test_gray_becomes_three_equal_channels():
    content = encoded(Image.fromarray(GRAY))
    assert np.array_equal(decode(content, channels=1)[..., 0], GRAY)
    assert np.array_equal(decode(content), np.stack([GRAY] * 3, axis=-1))


@pytest.mark.parametrize("highest", [0, 200, 2**16, 2**20])
def test_whole_numbers_of_an_unknown_range_are_refused(highest):
    """Read as gray levels of 16 bits, numbers up to 255 would become black."""
    levels = np.full((8, 8), highest, np.int32)
    with pytest.raises(DataError, match="of an unknown range; convert it to 8 or 16 bits"):
        decode(encoded(Image.fromarray(levels), "TIFF"))


def test_black_and_white():
    content = encoded(Image.fromarray(GRAY > 100))
    assert np.array_equal(decode(content, channels=1)[..., 0], 255 * (GRAY > 100))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_gray_is_scaled_and_not_cut_off(form, channels):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.round(deep / 257).astype(np.uint8)[..., None]
    assert np.array_equal(decode(encoded(Image.fromarray(deep), form), channels), np.repeat(expected, channels, axis=2))


def test_alpha_is_laid_over_the_background():
    alpha = np.tile(np.array([0, 64, 128, 255], np.uint8), (8, 2))[..., None]
    content = encoded(Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)))
    for background in (WHITE, (0, 0, 0), (10, 200, 30)):
        expected = (COLOUR * (alpha / 255) + np.array(background) * (1 - alpha / 255)).round()
        assert np.abs(decode(content, background=background) - expected).max() <= 1


def test_gray_with_alpha():
    content = encoded(Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(np.zeros_like(GRAY))]))
    assert (decode(content, channels=1, background=(7, 7, 7)) == 7).all()


def test_what_shows_through_does_not_bleed_into_the_rest():
    """Transparent pixels have a colour, too, often black: resizing before compositing would leave a dark rim."""
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:, :4] = 255
    assert (decode(encoded(Image.fromarray(picture)), size=(4, 4)) == 255).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palette(form):
    image = Image.fromarray(COLOUR).quantize(16)
    assert np.array_equal(decode(encoded(image, form)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(form):
    image = Image.fromarray((np.arange(64).reshape(8, 8) % 2).astype(np.uint8), "L").convert("P")
    image.putpalette([200, 0, 0, 0, 0, 200] + [0] * 762)
    pixels = decode(encoded(image, form, transparency=0), background=(1, 2, 3))
    assert (pixels[:, ::2] == [1, 2, 3]).all()
    assert (pixels[:, 1::2] == [0, 0, 200]).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_colour_that_is_transparent(mode):
    levels = np.where(np.arange(64).reshape(8, 8) % 2 == 0, 10, 200).astype(np.uint8)
    image = Image.fromarray(levels).convert(mode)
    pixels = decode(encoded(image, transparency=10 if mode == "L" else (10, 10, 10)), background=(1, 2, 3))
    assert (pixels[:, ::2] == [1, 2, 3]).all()
    assert (pixels[:, 1::2] == 200).all()


def test_cmyk():
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:4, :, 0] = 255  # cyan above, half black below
    inks[4:, :, 3] = 128
    pixels = decode(encoded(Image.fromarray(inks, "CMYK"), "TIFF")).astype(int)
    assert np.abs(pixels[:4] - [0, 255, 255]).max() <= 2
    assert np.abs(pixels[4:] - 127).max() <= 2
    assert np.abs(decode(encoded(Image.fromarray(inks, "CMYK"), "JPEG")).astype(int)[4:] - 127).max() <= 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_turned_upright_by_exif(form):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 270 degrees
    stored = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    pixels = decode(encoded(stored, form, exif=exif), size=(8, 16)).astype(int)
    assert np.abs(pixels - upright).max() <= 8
    assert PictureTransform(3, 8, 16, WHITE).exactly(encoded(stored, form, exif=exif)).shape == (3, 8, 16)
    with pytest.raises(DataError, match="it is 16x8, and the model's images are 8x16: crop and resize it first"):
        PictureTransform(3, 16, 8, WHITE).exactly(encoded(stored, form, exif=exif))


def test_the_first_frame_of_an_animation():
    first, second = Image.fromarray(np.full((8, 8), 50, np.uint8)), Image.fromarray(np.full((8, 8), 90, np.uint8))
    for form, how in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        content = encoded(first, form, save_all=True, append_images=[second], **how)
        assert (decode(content, channels=1) == 50).all()


@pytest.mark.parametrize(("height", "width"), [(1, 8), (8, 1), (1, 300), (1, 1), (3, 1000)])
def test_any_shape_in(height, width):
    image = Image.fromarray(np.full((height, width, 3), (9, 99, 199), np.uint8))
    assert (decode(encoded(image), size=(8, 4)) == (9, 99, 199)).all()


def test_the_centred_box_of_the_right_size_is_left_alone():
    big = np.random.default_rng(1).integers(0, 256, (8, 13, 3), np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(big))), big[:, 2:10])
    assert np.array_equal(decode(encoded(Image.fromarray(big)), size=(8, 13)), big)


def lanczos(size: int, out: int) -> np.ndarray:
    """The weight of each of `size` pixels in each of `out`: a window of three lobes, as wide as what is left out."""
    scale = max(1.0, size / out)
    x = ((np.arange(size) + 0.5) - (np.arange(out)[:, None] + 0.5) * size / out) / scale
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("given", "size", "box"),
    [
        ((53, 37), (8, 8), (slice(8, 45), slice(0, 37))),  # tall: the middle, not the top
        ((37, 53), (8, 8), (slice(0, 37), slice(8, 45))),
        ((37, 53), (8, 12), (slice(1, 36), slice(0, 53))),  # 8 x 12 fits 4.42 times: not 4, and not 4.63
        ((5, 4), (8, 8), (slice(0, 4), slice(0, 4))),
        ((9, 7), (9, 3), (slice(0, 9), slice(2, 5))),
    ],
)
def test_the_largest_centred_box_is_resized_by_lanczos(given, size, box):
    picture = np.random.default_rng(2).integers(0, 256, (*given, 3), np.uint8)
    cut = picture[box].astype(float)
    across = np.einsum("ow,hwc->hoc", lanczos(cut.shape[1], size[1]), cut).round().clip(0, 255)  # first, as Pillow does
    expected = np.einsum("oh,hwc->owc", lanczos(cut.shape[0], size[0]), across).round().clip(0, 255)
    assert np.abs(decode(encoded(Image.fromarray(picture)), size=size) - expected).max() <= 1


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    inner = decode(encoded(Image.fromarray(stripes)), channels=1, size=(16, 16))[:, 1:-1].astype(int)
    assert np.abs(inner - 127.5).max() < 12


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_half_a_file(form):
    content = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)), form)
    with pytest.raises(DataError):
        decode(content[: len(content) // 2])


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"<html>not found</html>", "not a picture")])
def test_no_picture(content, reason):
    with pytest.raises(DataError, match=reason):
        decode(content)


def test_floating_point_is_refused():
    with pytest.raises(DataError, match="floating point"):
        decode(encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"))


def test_the_rule_in_words():
    assert str(PictureTransform(3, 64, 32, (255, 0, 16))) == "3x64x32, centre crop, lanczos, over #ff0010"


@pytest.mark.parametrize("highest", [300, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pgm_is_scaled_by_the_highest_level_that_it_declares(highest, plain):
    """Dark ones, too, which hold no level above 255 of 65535."""
    levels = np.array([[0, 1, 2, 3], [0, highest // 300, highest // 200, highest // 100]], np.uint16)
    body = b" ".join(b"%d" % level for level in levels.flat) if plain else levels.astype(">u2").tobytes()
    for part in (levels[:1], levels):
        content = b"P%d 4 %d %d\n" % (2 if plain else 5, len(part), highest) + body
        pixels = decode(content, channels=1, size=part.shape)[..., 0]
        assert np.abs(pixels - part * (255 / highest)).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_a_16_bit_level_that_is_transparent(channels):
    levels = np.full((8, 8), 1001, np.uint16)  # which in 8 bits is that of its neighbour
    levels[:, ::2] = 1000
    levels[:, 5] = 65535
    pixels = decode(encoded(Image.fromarray(levels), transparency=1000), channels, background=(99, 99, 99))
    assert (pixels[:, ::2] == 99).all()
    assert (pixels[:, [1, 3, 7]] == 4).all()
    assert (pixels[:, 5] == 255).all()
