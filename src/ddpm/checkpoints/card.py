"""The model card of an export, README.md: what the model is, how it is used, and what was measured, by which protocol.

Its front matter is the Hub's: `model-index` holds the numbers of the last evaluation of these weights, each with its
protocol. https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

import json
import math
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from ddpm.checkpoints import checkpoint, hub
from ddpm.checkpoints.checkpoint import Checkpoint
from ddpm.diffusion.reverse import ReverseProcess
from ddpm.evaluation.protocol import digest_of_weights
from ddpm.evaluation.results import read as read_results
from ddpm.metrics import registry
from ddpm.runs import folders

TASK = "unconditional-image-generation"


def card(saved: Checkpoint, config: DictConfig, p: ReverseProcess, shape: tuple[int, ...], kind: str) -> str:
    """The card of a checkpoint that is exported as `kind`; `shape` is that of an image."""
    results = results_of(saved, p)
    name = saved.name if saved.run is None else str(config.name)
    parameters = sum(weights.numel() for weights in p.network.parameters())
    trained = f", after {saved.step:,} steps of training" if saved.step else ""
    use = _diffusers_use(p.q.T) if kind == "diffusers" else _own_use()
    axes = "\n".join(f"| {axis} | {config.choices[axis]} |" for axis in ("schedule", "prediction", "variance"))
    return f"""---
{_front_matter(name, config, kind, results)}---
# {name}

A denoising diffusion model ([Ho et al. 2020](https://arxiv.org/abs/2006.11239)) of {config.choices.data} images,
{"x".join(map(str, shape))}: {parameters:,} parameters{trained}.

| | |
|---|---|
{axes}
| T | {p.q.T} |

## Use

{use}

## Measured

{_table(results)}
"""


def results_of(saved: Checkpoint, p: ReverseProcess) -> dict[str, Any] | None:
    """The newest results.json of p's weights: finite numbers under `metrics`, and their `protocol`."""
    files = [saved.run / "results.json"] if saved.run else _of_file(saved.name)
    for found in map(read_results, files):
        try:
            if found["weights_sha256"] != digest_of_weights(p):
                continue
            metrics = {
                str(name): parts
                for name, parts in found["metrics"].items()
                if math.isfinite(parts["value"]) and isinstance(parts.get("n"), int)
            }
            return {"metrics": metrics, "protocol": dict(found["protocol"])}
        except (OverflowError, ValueError, KeyError, TypeError, AttributeError):  # none, or no file of ours
            continue
    return None


def _of_file(name: str) -> list[Path]:
    """The results of checkpoint files of this name that are in no run, newest first."""
    written = (folders.ROOT / "evaluations" / name).glob("*/results.json")
    return sorted(written, key=lambda file: file.stat().st_mtime, reverse=True)


def model_index(name: str, data: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The Hub's `model-index`: each number with the split that it is of, its own parts, and its protocol.

    Args:
        name: of the model.
        data: the dataset's name.
        results: as from `results_of`.
    """
    of_splits: dict[str, list[dict[str, Any]]] = {}
    for metric, parts in results["metrics"].items():
        own = {part: value for part, value in parts.items() if part != "value"}
        entry = {"type": metric, "name": registry.of(metric).title, "value": parts["value"]}
        split = str(parts.get("reference", parts.get("split", "")))
        of_splits.setdefault(split, []).append({**entry, "args": {**own, "protocol": results["protocol"]}})
    return [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": TASK},
                    "dataset": {"type": data, "name": data, **({"split": split} if split else {})},
                    "metrics": metrics,
                }
                for split, metrics in of_splits.items()
            ],
        }
    ]


def _front_matter(name: str, config: DictConfig, kind: str, results: dict[str, Any] | None) -> str:
    content: dict[str, Any] = {"library_name": "diffusers"} if kind == "diffusers" else {}
    content |= {"pipeline_tag": TASK, "tags": ["ddpm"]}
    if (begun := str(config.get("init"))).startswith(hub.SCHEME):
        content["base_model"] = begun.removeprefix(hub.SCHEME).partition("@")[0]
    if results:
        content["model-index"] = model_index(name, str(config.data.get("name", config.choices.data)), results)
    copied = json.loads(json.dumps(content))  # the Hub reads no aliases, as a protocol that comes twice
    return str(yaml.safe_dump(copied, sort_keys=False, allow_unicode=True))


def _diffusers_use(T: int) -> str:
    return f"""```python
from diffusers import DDPMPipeline

images = DDPMPipeline.from_pretrained(FOLDER)(batch_size=16, num_inference_steps={T}).images
```"""


def _own_use() -> str:
    return f"""`ddpm evaluate ckpt=FOLDER` or, in Python, `ddpm.load(FOLDER)`. `{checkpoint.EXPORTED}` has the
tensors under the names of the original's code and, in its metadata, the whole configuration."""


def _table(results: dict[str, Any] | None) -> str:
    if not results:
        return "Not evaluated."
    lines = ["| metric | value | of |", "|---|---|---|"]
    for name, parts in results["metrics"].items():
        spread = next((f" ± {parts[kind]:.3g} ({kind})" for kind in ("std", "stderr") if kind in parts), "")
        against = f" against {parts['reference_n']:,} of {parts['reference']}" if "reference" in parts else ""
        lines.append(f"| {name} | {parts['value']:.4f}{spread} | {parts['n']:,} images{against} |")
    return "\n".join([*lines, "", "```json", json.dumps(results["protocol"], indent=2), "```"])
