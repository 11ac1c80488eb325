"""What an evaluation will cost is said before it begins; what is done already costs nothing."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from evaluated import made

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
