"""What looks wrong with a run, in sentences, by its configuration and its metrics.csv: docs/charts.md as rules.

Each rule is a function of a run that returns a `Finding` or None. Thresholds lie between the default run, which is
healthy, and the same run with a fault planted in it (tests/report/test_diagnosis.py).
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ddpm.report import reading
from ddpm.report.run import Curve, ReportedRun
from ddpm.training.by_heart import how_learned_by_heart, learned_by_heart
from ddpm.training.monitor import (
    INITIAL,
    TOLERABLE_WAIT,
    fitting_decay,
    held_out_bound_name,
    steps_to_settle,
    training_bound_name,
)

FEWEST = 20  # logged losses, without which nothing is said
LOSS, GRADIENT = "train/loss", "train/gradient_norm"
SPIKE = 1.3  # times the loss of the untrained network
STUCK = 0.25  # of that loss, where a healthy run has long been below
EVENLY = 0.6  # of the whole fall of the loss: a healthy one has fallen by more early in the run, whatever is predicted
STEEP = 0.3  # of the gradient's norm in the beginning
SCATTERED = 0.4  # of the loss: where logged losses differ by more, as with objective=vlb, they say nothing one by one
RISE = 2.0  # times the smallest loss of a tenth of the run
PER_DOUBLING = 0.08  # of the bound, by which it falls when the steps double
WORSE = 1.1  # times the best bound


@dataclass(frozen=True)
class Finding:
    """What looks wrong, by which numbers, and what to do about it."""

    name: str
    fact: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.fact}. {self.advice}."


Rule = Callable[[ReportedRun], Finding | None]


def findings(run: ReportedRun) -> list[Finding]:
    """What looks wrong with a run that has logged enough (`enough`)."""
    return [found for rule in RULES if (found := rule(run))]


def enough(run: ReportedRun) -> bool:
    """Whether a run has logged enough to be judged."""
    return len(_curve(run, LOSS)[0]) >= FEWEST


def diverged(run: ReportedRun) -> Finding | None:
    """A gradient was not finite, which ended the run."""
    numbered = [(path.stem.rpartition("_")[2], path.name) for path in run.folder.glob("diverged_step_*.safetensors")]
    kept = [(int(number), name) for number, name in numbered if number.isdecimal()]
    if not kept:
        return None
    step, name = max(kept)
    return Finding(
        "diverged",
        f"the gradient of step {step:,} was not finite, and its batch is kept in {name}",
        f"Start anew with a smaller {_rates(run)}, a longer optimizer.warmup, or trainer.precision=32-true",
    )


def no_warmup(run: ReportedRun) -> Finding | None:
    """The loss rose above that of the untrained network at once, and there was no warm-up."""
    warmup, spike = _setting(run, "optimizer", "warmup"), _spike(run)
    if warmup != 0 or spike is None or not _stuck(run) or _is_scattered(run):
        return None
    step, value = spike
    return Finding(
        "no warm-up",
        f"optimizer.warmup=0, and the loss rose to {value:.3g} at step {step:,.0f}, from {_untrained(run):.3g}",
        "Let the learning rate rise over some hundred steps: optimizer.warmup=500; if that is not enough, lower it",
    )


def learning_rate_too_high(run: ReportedRun) -> Finding | None:
    """The loss rose above that of the untrained network and came down slowly, or rises at the end."""
    spike, losses = _spike(run), tenths(_curve(run, LOSS))
    fact = ""
    if no_warmup(run) or _is_scattered(run):  # the first may be all that is wrong
        return None
    if spike and _stuck(run):
        step, value = spike
        later = early(_curve(run, LOSS))
        fact = (
            f"the loss rose from {_untrained(run):.3g} to {value:.3g} at step {step:,.0f}, "
            f"and was {later:.3g} between a tenth and three tenths of the run"
        )
    elif losses and losses[-1] > RISE * min(losses):
        fact = f"the loss rises: it was {min(losses):.3g} over a tenth of the run, and is {losses[-1]:.3g} at the end"
    if not fact:
        return None
    advice = f"Try a tenth of {_rates(run)}" + (", a longer optimizer.warmup" if spike else "")
    return Finding("learning rate too high", fact, advice)


def learning_rate_too_low(run: ReportedRun) -> Finding | None:
    """The loss comes down evenly and slowly, and the gradient is as steep as in the beginning."""
    loss, norm = tenths(_curve(run, LOSS)), tenths(_curve(run, GRADIENT))
    warm = _curve(run, LOSS)[0][-1] > 3 * (_setting(run, "optimizer", "warmup") or 0)
    if not (loss and norm and warm) or _spike(run) or not _stuck(run) or _is_scattered(run):
        return None
    if loss[-1] < STUCK * _untrained(run) or norm[-1] < STEEP * norm[0]:
        return None
    fall = max(_untrained(run) - loss[-1], 0.1 * _untrained(run))  # less than that is scatter
    if _untrained(run) - early(_curve(run, LOSS)) > EVENLY * fall:
        return None
    return Finding(
        "learning rate too low",
        f"the loss fell from {_untrained(run):.3g} to {loss[-1]:.3g} only, and the gradient is as steep as in the "
        f"beginning (norm {norm[-1]:.3g} now, {norm[0]:.3g} at first)",
        f"Try ten times {_rates(run)}",
    )


def too_few_steps(run: ReportedRun) -> Finding | None:
    """The bound of held-out images still falls fast, and not for a learning rate that is wrong."""
    if any(rule(run) for rule in (no_warmup, learning_rate_too_high, learning_rate_too_low)):
        return None
    steps, bound = bounds(run)[0]
    half = max((k for k, step in enumerate(steps) if step <= steps[-1] / 2), default=None)
    if half is None or not run.finished or min(bound) <= 0:  # of a density, of which a share means nothing
        return None
    fall = (bound[half] - bound[-1]) / bound[-1]
    if fall < PER_DOUBLING * math.log2(steps[-1] / steps[half]):
        return None
    return Finding(
        "too few steps",
        f"the bound of held-out images still falls: {bound[half]:.3f} bits/dim at step {steps[half]:,.0f}, "
        f"{bound[-1]:.3f} at step {steps[-1]:,.0f}",
        f"Train for at least twice as long: max_steps={2 * int(steps[-1])}",
    )


def memorising(run: ReportedRun) -> Finding | None:
    """The bound of held-out images rises, and that of training images falls."""
    held_out, seen = bounds(run)
    if not (found := learned_by_heart(held_out, seen)):
        return None
    return Finding(
        "memorising",
        how_learned_by_heart(held_out, seen, *found),
        "The best weights are in checkpoints/best.ckpt (which=best); more images, network.dropout or "
        "data.horizontal_flip help, and stop.patience=2 ends a run in time",
    )


def average_too_long(run: ReportedRun) -> Finding | None:
    """The averaged weights hold the initial ones still."""
    decay, length = _setting(run, "ema", "decay"), _curve(run, LOSS)[0][-1]
    if not run.finished:
        length = max(length, _setting(run, "max_steps") or 0)
    if decay is None or not 0 < decay < 1 or decay**length < INITIAL:
        return None
    return Finding(
        "average too long",
        f"with ema.decay={decay} the average is to {decay**length:.0%} made of the initial weights after "
        f"{length:,.0f} steps",
        f"Train for {steps_to_settle(decay):,} steps at least, or lower it: ema.decay={fitting_decay(length):.4g}",
    )


def average_got_worse(run: ReportedRun) -> Finding | None:
    """The averaged weights describe all images worse than they did before."""
    held_out, seen = bounds(run)
    settled = steps_to_settle(_setting(run, "ema", "decay") or 0.0)
    for steps, bound in (held_out, seen):
        after = [value for step, value in zip(steps, bound, strict=True) if step > settled]
        if len(after) < 2 or min(after) <= 0 or bound[-1] < WORSE * min(after):
            return None
    best = min(range(len(held_out[1])), key=held_out[1].__getitem__)
    return Finding(
        "the average got worse",
        f"the bound of held-out images was {held_out[1][best]:.3f} bits/dim at step {held_out[0][best]:,.0f} and is "
        f"{held_out[1][-1]:.3f}, and that of training images rose as well",
        "The training has become unstable: take checkpoints/best.ckpt (which=best), and go on from there with a "
        f"smaller {_rates(run)}, or optimizer.grad_clip, in a new run (init=)",
    )


def waits_for_data(run: ReportedRun) -> Finding | None:
    """Steps wait for their batches."""
    _, shares = _curve(run, "train/data_wait")
    if len(shares) < 2 or (share := statistics.median(shares[1:])) <= TOLERABLE_WAIT:  # the first is of the start
        return None
    return Finding(
        "waits for data",
        f"a step waits for its batch {share:.0%} of the time",
        "Raise loader.num_workers, or decode once and for all: data.array_gib=SIZE",
    )


RULES: tuple[Rule, ...] = (
    diverged,
    no_warmup,
    learning_rate_too_high,
    learning_rate_too_low,
    too_few_steps,
    memorising,
    average_too_long,
    average_got_worse,
    waits_for_data,
)


def _setting(run: ReportedRun, *keys: str) -> float | None:
    found: Any = run.config
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return reading.finite(found)


def _rates(run: ReportedRun) -> str:
    """The settings of the learning rates that the run has, to be changed together."""
    rates = {key: _setting(run, "optimizer", key) for key in ("lr", "muon_lr")}
    return (
        " and ".join(f"optimizer.{key}={rate:g}" for key, rate in rates.items() if rate is not None) or "optimizer.lr"
    )


def _curve(run: ReportedRun, name: str) -> Curve:
    return run.history.get(name, ([], []))


def bounds(run: ReportedRun) -> tuple[Curve, Curve]:
    """The bounds of held-out and of training images at the steps of validations."""
    T = int(_setting(run, "schedule", "T") or 0)
    return _curve(run, held_out_bound_name(T)), _curve(run, training_bound_name(T))


def _untrained(run: ReportedRun) -> float:
    """The first logged loss: of a network that predicts nothing yet, in the warm-up."""
    return _curve(run, LOSS)[1][0]


def _spike(run: ReportedRun) -> tuple[float, float] | None:
    """Step and value of the largest loss, if it is larger than that of the untrained network by far."""
    steps, loss = _curve(run, LOSS)
    highest = max(range(len(loss)), key=loss.__getitem__)
    return (steps[highest], loss[highest]) if loss[highest] > SPIKE * _untrained(run) else None


def _is_scattered(run: ReportedRun) -> bool:
    """Whether one loss of the run's later half differs from the next by more than `SCATTERED`, in the median."""
    later = _curve(run, LOSS)[1][len(_curve(run, LOSS)[1]) // 2 :]
    steps = [abs(after - before) for before, after in pairwise(later)]
    return statistics.median(steps) > SCATTERED * statistics.median(later)


def _stuck(run: ReportedRun) -> bool:
    return early(_curve(run, LOSS)) > STUCK * _untrained(run)


def early(curve: Curve) -> float:
    """The median between a tenth and three tenths of the run: after the warm-up, where a healthy loss has fallen."""
    return statistics.median(curve[1][len(curve[1]) // 10 : 3 * len(curve[1]) // 10])


def tenths(curve: Curve) -> list[float]:
    """The medians over tenths of a curve, if it is long enough."""
    values = curve[1]
    if len(values) < FEWEST:
        return []
    return [statistics.median(values[k * len(values) // 10 : (k + 1) * len(values) // 10]) for k in range(10)]
