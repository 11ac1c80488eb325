"""The page of a report shows the newest pictures of a run, made small enough, and the training as a film."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ddpm.report import pictures
from ddpm.report.run import ReportedRun


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def run_with(folder, images, kind="samples"):
    """A run whose pictures are these, by step."""
    (folder / kind).mkdir(parents=True)
    for step, image in images.items():
        image.save(folder / kind / f"step_{step}.png")
    return ReportedRun(folder, "finished")


def opened(picture):
    """What a browser sees of it, and how many bytes it has."""
    kind, _, content = picture.source.partition(";base64,")
    data = base64.b64decode(content)
    image = Image.open(io.BytesIO(data))
    assert kind == f"data:image/{image.format.lower()}"
    return image, len(data)


def test_a_small_picture_is_its_file(tmp_path):
    run = run_with(tmp_path, {7: noise(40, 30)})
    found = pictures.newest(run, "samples")
    assert base64.b64decode(found.source.partition(",")[2]) == (tmp_path / "samples/step_7.png").read_bytes()
    assert (found.step, found.width, found.height) == (7, 40, 30)


def test_the_newest_is_that_of_the_largest_step(tmp_path):
    run = run_with(tmp_path, {9: noise(9, 9), 10: noise(10, 10), 100: noise(12, 12)})
    (tmp_path / "samples/step_last.png").write_bytes((tmp_path / "samples/step_9.png").read_bytes())
    assert pictures.newest(run, "samples").step == 100
    assert pictures.newest(run, "progressive") is None
    assert run.problems == []


@pytest.mark.parametrize(
    ("size", "shown"),
    [((1120, 600), (560, 300)), ((300, 300), (300, 300)), ((40, 4480), (20, 2240))],
    ids=["wide", "of many bytes", "tall"],
)
def test_a_large_picture_is_made_smaller_in_proportion(tmp_path, size, shown):
    found = pictures.newest(run_with(tmp_path, {1: noise(*size)}), "samples")
    image, size_of_file = opened(found)
    assert (found.width, found.height) == image.size == shown
    assert image.format == "WEBP"
    assert size_of_file <= 60_000


def test_a_picture_keeps_the_best_quality_that_is_small_enough(tmp_path):
    """A smooth ramp is small enough at the first quality, and must not be compressed any further."""
    ramp = Image.fromarray(np.add.outer(np.arange(600), np.arange(600)).astype(np.float32) / 5).convert("RGB")
    image, _ = opened(pictures.newest(run_with(tmp_path, {1: ramp}), "samples"))
    expected = io.BytesIO()
    ramp.thumbnail((560, 560))
    ramp.save(expected, "WEBP", quality=85)
    assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(Image.open(expected).convert("RGB")))


def levels(picture):
    """The gray level and the milliseconds of every frame of a film."""
    image, _ = opened(picture)
    found = []
    for frame in range(image.n_frames):
        image.seek(frame)
        found.append((float(np.asarray(image.convert("RGB")).mean()), image.info["duration"]))
    return found


def test_a_film_goes_from_the_first_step_to_the_last_which_stays(tmp_path):
    steps = [10 * k for k in range(1, 31)]
    found = pictures.film(run_with(tmp_path, {step: Image.new("RGB", (400, 200), (step // 2,) * 3) for step in steps}))
    frames = levels(found)
    assert len(frames) == 12
    wanted = [steps[round(29 * k / 11)] // 2 for k in range(12)]
    assert [level for level, _ in frames] == pytest.approx(wanted, abs=2)
    assert [each for _, each in frames][:-1] == [400] * 11
    assert frames[-1][1] == 2000
    assert (found.step, found.width, found.height) == (300, 280, 140)


@pytest.mark.parametrize(("sizes", "frames"), [([8, 8], 0), ([8, 8, 8], 3), ([8, 8, 9], 0)])
def test_a_film_has_three_pictures_at_least_of_one_size(tmp_path, sizes, frames):
    found = pictures.film(run_with(tmp_path, {k: noise(size, size, k) for k, size in enumerate(sizes)}))
    assert (len(levels(found)) if found else 0) == frames


def test_what_is_no_png_is_not_opened(tmp_path):
    run = run_with(tmp_path, {1: noise(8, 8)})
    noise(8, 8).save(tmp_path / "samples/step_2.png", "JPEG")
    noise(8, 8).save(tmp_path / "data.png", "BMP")
    assert pictures.newest(run, "samples").step == 1
    assert pictures.sheet(run) is None
    assert run.problems == ["samples/step_2.png is not a picture", "data.png is not a picture"]


def test_a_run_without_a_sheet_of_its_data_lacks_nothing(tmp_path):
    run = ReportedRun(tmp_path, "finished")
    assert pictures.sheet(run) is None
    assert run.problems == []
    noise(30, 20).convert("L").save(tmp_path / "data.png")
    assert (pictures.sheet(run).step, pictures.sheet(run).width) == (0, 30)
