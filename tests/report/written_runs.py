"""Run folders and sweeps as files, without training."""

import json

import yaml
from PIL import Image

from ddpm.runs.records import Cell

PROTOCOL = {
    "data": "digits 1500+297 1x8x8",
    "weights": "exponential moving average",
    "sampler": {"name": "ddim", "num_steps": 100},
    "timesteps": 1000,
    "evaluations_per_sample": 100,
    "num_samples": 1500,
    "feature_metrics": {"inception_score_splits": 10, "kid_subsets": 100},
    "bound": {"images": {"test": 297}, "evaluations": 50},
    "fingerprint": "bfc09718a5",
}


def measured(fid=None, inception_score=None, bits_per_dim=None):
    """The metrics of a results.json."""
    metrics = {}
    if inception_score is not None:
        metrics["inception_score"] = {"value": inception_score, "std": 0.25, "n": 1500, "splits": 10}
    if fid is not None:
        metrics["fid"] = {"value": fid, "n": 1500, "reference": "test"}
    if bits_per_dim is not None:
        rate = bits_per_dim / 2
        metrics["bits_per_dim"] = {"value": bits_per_dim, "stderr": 0.025, "rate": rate, "distortion": rate}
    return metrics


def write_run(
    folder,
    *,
    seed=1,
    choices=(),
    settings=(),
    metrics=None,
    protocol=(),
    published=(),
    expected=(),
    step=100,
    codecs=None,
):
    """A run folder; `settings` by dotted keys."""
    config = {
        "loader": {"batch_size": 64, "num_workers": 0},
        "objective": {"_target_": "ddpm.diffusion.objective.Simple"},
        "schedule": {"T": 1000},
        "timesteps": {"T": 1000},
        "trainer": {"devices": "auto"},
        "logger": {},
        "max_steps": 100,
        "optimizer": {"lr": 0.001},
        "expected": dict(expected),
        "seed": seed,
        "out": str(folder),
        "choices": {"recipe": "digits", "objective": "simple", **dict(choices)},
    }
    for key, value in dict(settings).items():
        *path, leaf = key.split(".")
        section = config
        for part in path:
            section = section[part]
        section[leaf] = value
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    lines = ["step,train/loss,train/images_per_second,validation/bits_per_dim_16_timesteps"]
    lines += [f"{each},{1 / each},640,{'5.5' if each % 50 == 0 else ''}" for each in range(20, step + 1, 10)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    for each in (50, step):
        Image.new("RGB", (16, 16), (each, 0, 0)).save(folder / f"samples/step_{each:07d}.png")
    if metrics is not None:
        results = {
            "metrics": metrics,
            "protocol": PROTOCOL | dict(protocol),
            "published": list(published),
            **({"codecs": codecs} if codecs else {}),
        }
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def write_cell(sweep, number, *overrides, status="finished", reason="", seconds=60.0, begun=True, **run):
    """One run of a sweep: its record and, where it has `begun`, its folder."""
    cell = Cell(sweep / f"{number:03d}_cell", list(overrides), list(overrides), status, reason, seconds)
    sweep.mkdir(parents=True, exist_ok=True)
    if begun:
        write_run(cell.folder, **run)
    cell.write()
    return cell.folder
