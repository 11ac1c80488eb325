"""What an evaluation writes."""

import json

import numpy as np
import pytest
import torch
from evaluated import made
from PIL import Image

from ddpm.launch import Rank
from ddpm.runs import folders

CPU = torch.device("cpu")


@pytest.mark.parametrize("keep", ["images", "npz"])
def test_samples_are_kept_on_request(workspace, keep):
    p, evaluation = made("evaluation.metrics=[fid]")
    results = evaluation.run(p, Rank(0, 1, CPU), {}, workspace / "out")
    samples = torch.cat(list(results.samples())).permute(0, 2, 3, 1).numpy()
    results.publish(workspace / "out", [], 0, keep)
    assert not (workspace / "out" / folders.UNFINISHED).exists()
    if keep == "npz":
        found = np.load(workspace / "out" / "samples.npz")["arr_0"]
    else:
        files = sorted((workspace / "out" / "images").iterdir())
        assert [files[0].name, files[-1].name] == ["000.png", "100.png"]
        found = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    assert found.dtype == np.uint8
    assert np.array_equal(found, samples)
    assert found.shape == (101, 8, 8, 1)


def test_a_second_metric_joins_the_first(workspace):
    for metric in ("fid", "bits_per_dim"):
        p, evaluation = made(f"evaluation.metrics=[{metric}]")
        evaluation.run(p, Rank(0, 1, CPU), {}, workspace / "out").write(workspace / "out")
    content = json.loads((workspace / "out" / "results.json").read_text())
    assert set(content["metrics"]) == {"fid", "bits_per_dim"}
    assert (workspace / "out" / "rate_distortion.csv").read_text().startswith("reverse_step,t,rate_bits_per_dim,rmse\n")
    p, evaluation = made("evaluation.metrics=[fid]", "seed=2")
    evaluation.run(p, Rank(0, 1, CPU), {}, workspace / "out").write(workspace / "out")
    assert set(json.loads((workspace / "out" / "results.json").read_text())["metrics"]) == {"fid"}
