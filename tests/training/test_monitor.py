"""The best validation, patience, and learning by heart, each held against what is plain to see in a list of values."""

import dataclasses
import json
import math

import numpy as np
import pytest

from ddpm.config.compose import compose
from ddpm.config.errors import RequestError
from ddpm.config.saved import plain
from ddpm.training import monitor
from ddpm.training.by_heart import learned_by_heart
from ddpm.training.monitor import Monitor


def seen(values, **settings):
    """A monitor that has seen these at steps 10, 20, ..., and at which of them it said that it is the best."""
    follows = Monitor("validation/x", **settings)
    best = [10 * k for k, value in enumerate(values, 1) if follows.see(10 * k, value)]
    return follows, best


def test_the_best_is_the_smallest_so_far_and_an_equal_one_is_not_better():
    follows, best = seen([5.0, 4.0, 4.0, 6.0, 3.0])
    assert best == [10, 20, 50]
    assert (follows.best, follows.best_step, follows.waited) == (3.0, 50, 0)


def test_or_the_highest_where_higher_is_better():
    follows, best = seen([5.0, 4.0, 6.0, 6.0], higher=True)
    assert best == [10, 30]
    assert (follows.best, follows.waited) == (6.0, 1)


def test_another_kind_of_number_than_a_float_is_one():
    """A user's own metric may give whole numbers, or NumPy's."""
    follows, best = seen([5, np.float32(4.0)])
    assert best == [10, 20]
    assert json.loads(json.dumps(follows.state))["best"] == 4.0


def test_what_is_not_finite_is_no_improvement():
    _, best = seen([math.nan, 5.0, math.nan, -math.inf, 4.0])
    assert best == [20, 50]
    assert seen([math.nan, math.nan])[0].waited == 2


def test_patience_waits_for_improvements_that_are_large_enough_together():
    follows, best = seen([5.0, 4.9, 4.8, 4.7], min_delta=0.25)
    assert best == [10, 20, 30, 40]  # the best is the best, however little it is better
    assert (follows.waited, follows.reference) == (0, 4.7)  # 0.3 since the value on which to improve
    follows, _ = seen([5.0, 4.9, 4.8], min_delta=0.25)
    assert [follows.at_end(patience) for patience in (None, 1, 2, 3)] == [False, True, True, False]


def test_patience_does_not_count_while_the_average_holds_the_initial_weights():
    assert [seen([5.0] * n, settled=30)[0].waited for n in range(1, 6)] == [0, 0, 0, 1, 2]
    for decay in (0.5, 0.99, 0.9999):
        n = monitor.steps_to_settle(decay)
        assert decay**n < monitor.INITIAL <= decay ** (n - 1)
    assert monitor.steps_to_settle(0.0) == 0


def test_the_average_that_fits_remembers_a_part_of_the_run():
    for steps in (100, 2000, 50_000):
        half_life = math.log(0.5) / math.log(monitor.fitting_decay(steps))
        assert half_life == pytest.approx(0.03 * steps, rel=1e-6)
    assert monitor.fitting_decay(10**7) == 0.9999


def test_a_step_that_was_seen_is_not_counted_twice():
    follows, _ = seen([5.0, 6.0])
    assert not follows.see(20, 1.0)
    assert (follows.best, follows.waited) == (5.0, 1)


def test_it_goes_on_from_its_state_as_if_it_had_seen_all():
    values = [5.0, 4.0, 4.5, 4.2, 3.0, 3.5]
    whole, _ = seen(values, min_delta=0.1, settled=10)
    for cut in range(len(values) + 1):
        first, _ = seen(values[:cut], min_delta=0.1, settled=10)
        second = Monitor("validation/x", min_delta=0.1, settled=10)
        second.resume(first.state)
        for k in range(cut, len(values)):
            second.see(10 * (k + 1), values[k])
        assert second == whole
    other = Monitor("validation/y")
    other.resume(whole.state)
    assert other == Monitor("validation/y")  # of another metric, it begins anew
    other.resume(None)
    assert other == Monitor("validation/y")


def test_what_is_measured_otherwise_is_not_compared(capsys):
    before, _ = seen([5.0, 4.0], measured="20 images")
    same, other = Monitor("validation/x", measured="20 images"), Monitor("validation/x", measured="3 images")
    same.resume(before.state)
    assert (same, capsys.readouterr().err) == (before, "")
    other.resume(before.state)
    assert other == Monitor("validation/x", measured="3 images")
    assert "measured otherwise than before" in capsys.readouterr().err
    earlier = {key: value for key, value in before.state.items() if key != "measured"}  # a version that did not say
    other.resume(earlier)
    assert (other.best, other.measured) == (4.0, "3 images")


def test_how_validations_measure_is_told_apart(workspace):
    def measured(metric, *words):
        asked = compose(["every.metrics=400", f"best.metric={metric}", *words])
        return monitor.monitor_of(plain(asked)).measured

    of_bound = ("evaluation.bits_per_dim.images=3", "evaluation.chunk=7", "evaluation.bits_per_dim.decoder=exact")
    of_samples = ("sampler.steps=9", "sampler=ddim", "evaluation.seed=4", "features=random", "evaluation.chunk=7")
    for metric, words in (("bound", of_bound), ("fid", of_samples)):
        found = [measured(metric), *(measured(metric, word) for word in words)]
        assert len(set(found)) == len(found)
    assert measured("bound", "sampler.steps=9", "seed=3") == measured("bound")


@pytest.mark.parametrize(
    "change", [{"best": "4"}, {"step": 1.5}, {"higher": 1}, {"waited": True}, {"metric": None}, {"more": 1}]
)
def test_a_state_that_is_none_is_refused(change):
    with pytest.raises(ValueError, match="of the wrong kind"):
        Monitor("validation/x").resume(seen([5.0])[0].state | change)
    with pytest.raises(ValueError, match="of the wrong kind"):
        Monitor("validation/x").resume([1, 2])


def test_what_is_followed_is_what_the_configuration_says(workspace):
    asked = plain(
        compose(
            [
                *("every.metrics=400", "validation.metrics=[fid,precision_recall]", "ema.decay=0.99"),
                *("schedule.T=9", "sampler.steps=5"),
            ]
        )
    )
    found = dataclasses.replace(monitor.monitor_of(asked), measured="")
    assert found == Monitor("validation/bits_per_dim_9_timesteps", settled=390)
    for metric, higher in (("fid", False), ("recall", True)):
        asked["best"]["metric"] = metric
        found = dataclasses.replace(monitor.monitor_of(asked), measured="")
        assert found == Monitor(f"validation/{metric}_500_samples", higher, settled=390)
    for metric, problem in (
        ("fud", "best.metric=fud is not one of bound, .*did you mean fid"),
        ("inception_score", "add inception_score to validation.metrics"),
    ):
        asked["best"]["metric"] = metric
        with pytest.raises(RequestError, match=problem):
            monitor.monitor_of(asked)
    asked["best"]["metric"], asked["every"]["metrics"] = "fid", None
    with pytest.raises(RequestError, match=r"only with every\.metrics=STEPS"):
        monitor.monitor_of(asked)


def parted(held_out, training):
    steps = [float(step) for step in range(len(held_out))]
    return learned_by_heart((steps, held_out), (steps, training))


def test_training_images_are_learned_by_heart_where_the_bounds_part():
    assert parted([8.0, 6.0, 6.5, 7.0], [8.0, 5.0, 4.5, 4.0]) == (1, 3)
    assert parted([8.0, 6.0, 6.5], [8.0, 5.0, 4.5]) is None  # one validation may be luck
    assert parted([8.0, 6.0, 6.5, 5.9], [8.0, 5.0, 4.5, 4.0]) is None  # it is better again
    assert parted([8.0, 6.0, 6.5, 7.0], [8.0, 5.0, 5.5, 6.0]) is None  # all images become worse: unstable
    assert parted([8.0, 6.0, 6.01, 6.02], [8.0, 5.0, 4.5, 4.0]) is None  # the scatter of validations
    assert parted([8.0, 6.0, 6.5, 7.0], [8.0, 5.0, 5.0, 4.99]) is None
    assert parted([8.0, 6.0], [8.0, 5.0]) is None
    assert learned_by_heart(([1.0, 2.0, 3.0], [8.0, 8.5, 9.0]), ([], [])) is None  # an earlier version's run
