"""What an evaluation will cost is said before it begins; what is done already costs nothing."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from evaluated import made

from ddpm.diffusion.condition import Condition
from ddpm.evaluation import forecast
from ddpm.evaluation.chunks import Chunks
from ddpm.launch import Rank


@pytest.mark.parametrize(
    ("kept", "done", "left"), [([], "", "2 min"), ([0, 2], "60 of them are done already; ", "48 s")]
)
def test_the_time_left_is_that_of_the_chunks_that_are_not_done(tmp_path, monkeypatch, capsys, kept, done, left):
    """25 samples of 4 evaluations, in chunks of 10, the last of them short, at 1.2 seconds each."""
    monkeypatch.setattr(forecast, "_seconds_per_evaluation", lambda *_: 1.2)
    chunks = Chunks(10, 0, Rank(0, 1, torch.device("cpu")), tmp_path)
    for k in kept:
        chunks.once("samples", k, lambda: torch.zeros(1))
    p, _ = made()
    forecast.announce([forecast.Part("25 samples", "samples", 25, 4)], p, (1, 8, 8), chunks, nullcontext)
    assert f"{done}about {left}" in " ".join(capsys.readouterr().out.split())


def test_the_time_of_an_evaluation_is_that_of_one_image_in_the_second_trial(monkeypatch):
    """32 images take 9 seconds, and 64 where they are the first."""
    clock = iter([0.0, 64.0, 73.0])
    monkeypatch.setattr(forecast, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    p, _ = made()
    chunks = Chunks(100, 0, Rank(0, 1, torch.device("cpu")))
    images = []
    p.network.register_forward_hook(lambda _, inputs, __: images.append(len(inputs[0])))
    seconds = forecast._seconds_per_evaluation(p, (1, 8, 8), chunks, nullcontext, lambda _: None)
    assert (seconds, images) == (9 / 32, [32, 32])


@pytest.mark.parametrize("size", [5, 32])
def test_the_trial_is_of_what_will_be_evaluated(size):
    """It has a chunk's examples, told what samples are told, in the precision asked for and without gradients."""
    p, _ = made("condition=label")
    seen = []

    def see(_, inputs, __):
        x_t, t, condition = inputs
        modes = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        seen.append((len(x_t), set(t.tolist()), condition.labels.tolist(), *modes))

    p.network.register_forward_hook(see)
    forecast.announce(
        [forecast.Part("9 samples", "samples", 9, 4)], p, (1, 8, 8), Chunks(size, 0, Rank(0, 1, torch.device("cpu"))),
        lambda: torch.autocast("cpu", torch.bfloat16), lambda indices: Condition(torch.tensor([*indices]) % 10),
    )  # fmt: skip
    assert seen == [(size, {p.q.T - 1}, [k % 10 for k in range(size)], False, True)] * 2
