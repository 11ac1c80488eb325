"""Settings for pictures of one's own, from numbers alone."""

from dataclasses import replace

import pytest

from ddpm.config.errors import RequestError
from ddpm.own_pictures import pictures, settings
from ddpm.own_pictures.pictures import Pictures
from ddpm.own_pictures.settings import Cost, Plan, Rung

EMOJI = Pictures(
    name="emoji", train=3600, test=400, looked_at=4000, height=64, width=64, agreeing=1.0, smallest=(64, 64),
    largest=(64, 64), gray=3, transparent=0, classes=0, copies=0, crossing=0, damaged=(), seconds=1e-3,
)  # fmt: skip


def of_size(height, width, agreeing=1.0):
    return replace(EMOJI, height=height, width=width, agreeing=agreeing)


@pytest.mark.parametrize(
    ("said", "seconds"), [("90s", 90), ("10min", 600), ("2h", 7200), ("1.5 h", 5400), ("1d", 86400)]
)
def test_a_budget_is_a_time(said, seconds):
    assert settings.seconds_of(said) == seconds


@pytest.mark.parametrize("said", ["10", "ten min", "10m", "-1h", "0s", "1e3s", None, "10min or so"])
def test_what_is_no_budget_is_refused(said):
    with pytest.raises(RequestError, match="must be a time: 90s, 10min"):
        settings.seconds_of(said)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (64, 64, [16, 32, 64]),
        (32, 32, [16, 32]),
        (28, 28, [16, 28]),
        (20, 20, [16, 20]),
        (12, 9, [12]),
        (7, 5, [6]),
        (48, 32, [16, 32, 48]),
        (480, 640, [16, 32, 64, 128]),
        (128, 128, [16, 32, 64, 128]),
    ],
)
def test_sizes_that_are_tried_are_no_larger_than_the_pictures_and_halve(height, width, expected):
    assert pictures.sizes(of_size(height, width)) == expected
    for size in expected:
        assert size % 2 ** pictures.halvings(size) == 0


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (128, "larger than the pictures, which are 64x64: use size=64"),
        (33, "does not halve 2 times, as a network for it would: use size=32 or size=36"),
        (65, "use size=64$"),  # what lies above is larger than the pictures
        (2, "from 4 to 1,024"),
        ("big", "whole number"),
        (True, "whole number"),
        (32.5, "whole number"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_the_nearest_that_can(size, message):
    with pytest.raises(RequestError, match=message):
        pictures.sizes(EMOJI, size)


def test_pictures_of_a_few_pixels_are_refused():
    with pytest.raises(RequestError, match="3x2: bring some of 4x4"):
        pictures.sizes(of_size(3, 2))


@pytest.mark.parametrize("size", [16, 32, 48, 64, 128])
@pytest.mark.parametrize(("height", "width"), [(640, 480), (480, 640), (400, 300), (300, 300), (640, 400), (1000, 100)])
def test_the_shape_has_the_pictures_aspect_ratio_as_nearly_as_it_halves(height, width, size):
    found = pictures.shape(of_size(height, width), size)
    unit = 2 ** pictures.halvings(size)
    assert max(found) == size
    assert all(side % unit == 0 for side in found)
    exact = size * min(height, width) / max(height, width)
    assert min(found) == unit or abs(min(found) - exact) <= unit / 2
    assert (found[0] < found[1]) == (height < width) or found[0] == found[1]


def test_pictures_of_many_shapes_are_cut_square():
    assert pictures.shape(of_size(640, 480, agreeing=0.4), 32) == (32, 32)


@pytest.mark.parametrize("coding", [0.0, 0.08])
@pytest.mark.parametrize("cost", [1e-4, 2e-3, 2e-2])
@pytest.mark.parametrize("budget", [300.0, 3600.0, 86400.0])
def test_a_plan_fits_its_budget_and_uses_most_of_it(cost, budget, coding):
    plan = Plan(budget, Cost(cost, cost / 4, coding=coding), EMOJI, batch=32, draws=50)
    assert 0.85 * budget < plan.seconds(plan.steps) <= budget
    said = {choice.key: choice.value for choice in settings.of_plan(plan)}
    samples, images = int(said["evaluation.num_samples"]), int(said["evaluation.bits_per_dim.images"])
    of_bound = images * int(said["evaluation.bits_per_dim.evaluations"])
    measured = (samples * plan.draws + of_bound) * plan.cost.evaluation
    assert measured <= plan.evaluation or samples == 100  # which is the least


@pytest.mark.parametrize("budget", [60.0, 600.0, 7200.0])
def test_codecs_take_a_twentieth_of_the_budget_at_most(budget):
    free, dear = (Plan(budget, Cost(1e-3, 1e-4, coding=each), EMOJI, batch=32, draws=50) for each in (0.0, 0.08))
    seconds = dear.validated * 0.08
    assert seconds <= 0.05 * budget
    assert seconds > 0.045 * budget or dear.validated == EMOJI.test
    assert dear.validated <= free.validated
    few = replace(EMOJI, test=dear.validated)  # as many are validated then, with codecs or without
    assert replace(dear, pictures=few).beside - replace(free, pictures=few).beside == pytest.approx(seconds)


@pytest.mark.parametrize("budget", [5.0, -20.0])  # the look at the pictures took longer than there was
def test_the_budget_that_is_named_instead_is_enough_and_not_far_more(budget):
    plan = Plan(budget, Cost(5e-3, 1e-3), EMOJI, batch=32, draws=50)
    rung = Rung(16, 16, 32)
    said = settings.too_short(plan, rung)
    assert said is not None
    seconds = settings.seconds_of(said)
    assert replace(plan, budget=seconds).shown >= rung.pictures_needed / settings.ROUGH
    assert replace(plan, budget=seconds / 2).shown < rung.pictures_needed / settings.ROUGH
    assert settings.too_short(replace(plan, budget=seconds), rung) is None


def test_larger_pictures_and_wider_networks_need_to_see_more():
    small, larger = Rung(16, 16, 32), Rung(32, 32, 32)
    assert small.pictures_needed < larger.pictures_needed < larger.wider(64).pictures_needed
    assert larger.wider(64).pictures_needed < larger.wider(128).pictures_needed


@pytest.mark.parametrize(("size", "patches"), [(16, [1]), (32, [1]), (48, [2, 1]), (64, [2, 1]), (128, [4, 2, 1])])
def test_large_pictures_are_tried_in_patches_first_and_halved_as_far(size, patches):
    rung = Rung(size, size // 2, 32).in_patches()
    assert [each.patch_size for each in (rung, *rung.finer())] == patches
    for each in (rung, *rung.finer()):
        assert each.patch_size * 2**each.halvings == 2 ** pictures.halvings(size)
        assert each.lowest == Rung(size, size // 2, 32).lowest
        said = {choice.key: choice.value for choice in settings.of_rung(each, EMOJI, 32, "32-true")}
        assert len(said["network.channel_mult"].split(",")) == each.halvings + 1


def test_gray_and_damaged_pictures_have_settings():
    said = {choice.key: choice.value for choice in settings.of_pictures(EMOJI)}
    assert said == {"name": "own_emoji", "data.channels": "3"}
    gray = replace(EMOJI, gray=3999, damaged=["a.png: it is empty"], name="My pictures (2)")
    said = {choice.key: choice.value for choice in settings.of_pictures(gray)}
    assert said == {"name": "own_My_pictures_2", "data.channels": "1", "data.on_error": "skip"}


def test_what_is_seen_is_said():
    seen = replace(
        EMOJI, looked_at=100, smallest=(8, 9), largest=(70, 80), agreeing=0.5, gray=4, transparent=7, classes=3,
        copies=5, crossing=2, damaged=["a.png: it is empty", "b.png: it is empty"], train=300,
    )  # fmt: skip
    assert pictures.lines(seen) == [
        "emoji: 300 pictures to train on, 400 to test on; 100 of them were looked at",
        "height and width: from 8x9 to 70x80, 50% of them with nearly the aspect ratio of 64x64",
        "colours: 4 gray, the others in colour",
        "transparent: 7 have such pixels, which are laid over data.background",
        "classes: 3 sub-folders; condition=label tells the network which",
        "copies: 5 files are the same as another; in both splits: 2",
        "damaged: a.png: it is empty, and 1 more",
        "so few are soon known by heart; whether samples are copies: figures=[nearest_neighbours] "
        "figure.nearest_neighbours.spaces=[pixels]",
    ]
