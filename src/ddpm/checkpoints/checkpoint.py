"""Checkpoints: from a file or folder to a configuration and weights, nothing in them executed; and writing them."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.checkpoints import converters, hub, safe_reading
from ddpm.config import trust
from ddpm.config.which import BEST
from ddpm.files import name_again, whole_file
from ddpm.messages import printable, warn

EMA_PREFIX = "p_ema.network."
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
EXPORTED = "model.safetensors"  # of `ddpm.checkpoints.export` in our own format
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


@dataclass(frozen=True)
class Checkpoint:
    """What evaluation and resuming need of a training run."""

    path: Path
    config: dict[str, Any]  # resolved; of a foreign file: the layout ("foreign"), its overrides ("stated", "assumed")
    weights: dict[str, Tensor]  # the averaged network's state_dict
    step: int
    pending: bool = False  # a signal came before the validation and pictures of this step
    data: str | None = None  # the fingerprint of what it was trained on
    monitor: Any = None  # `training.monitor.Monitor.state`; None of an earlier version's
    content: dict[str, Any] | None = field(default=None, repr=False)  # all of the file, where `load` is to keep it

    @property
    def run(self) -> Path | None:
        """The run folder that the file lies in, if it lies in one of ours."""
        folder = self.path.parent.parent
        inside = self.path.parent.name == "checkpoints" and (folder / "config.yaml").is_file()
        return folder if inside and "foreign" not in self.config else None

    @property
    def name(self) -> str:
        """For folders and cards: the file's, the folder's, or that of the Hub's repository."""
        if self.path.parent.name == "snapshots":  # of the Hub's cache
            return self.path.parents[1].name.removeprefix("models--")
        if self.path.name == EXPORTED:
            return self.path.parent.name
        return self.path.name if self.path.is_dir() else self.path.stem


def locate(path: str | Path) -> Path:
    """The checkpoint that is meant: a file, the file that a run folder stands for, or a folder of another kind.

    Raises:
        FileNotFoundError: there is none.
    """
    path, shown = Path(path), printable(path)  # a message is one line
    if path.is_dir():
        for file in (path / "checkpoints" / LAST, path / EXPORTED):
            if file.is_file():
                return file.resolve()
        if not converters.is_folder(path):
            raise FileNotFoundError(
                f"{shown} is not a run folder with a checkpoint (checkpoints/last.ckpt), nor one of diffusers "
                "(config.json) or of ddpm.export (model.safetensors)"
            )
    if not path.exists():
        raise FileNotFoundError(f"{shown} does not exist: give a run folder or a checkpoint file")
    if not (path.is_file() or path.is_dir()):
        raise FileNotFoundError(f"{shown} is neither a file nor a folder")
    return path.resolve()


def load(path: str | Path, *, whole: bool = False) -> Checkpoint:
    """Read a checkpoint of ours or of another codebase without executing anything in it.

    Args:
        whole: keep what training goes on from, too, if the file has it; that is several times the weights.

    Raises:
        FileNotFoundError: nothing there.
        ImportError: an `hf://` address without huggingface_hub.
        ValueError: not a checkpoint of a known layout, damaged, one that holds more than tensors and plain containers,
            or of a model that conf/ cannot describe.
    """
    file = locate(hub.fetch(str(path)) if str(path).startswith(hub.SCHEME) else path)
    if file.is_dir():
        return _foreign(file, converters.from_folder(file))
    if file.suffix == ".safetensors":
        weights, metadata = safe_reading.read_safetensors(file)
        if {"config", "global_step"} <= metadata.keys():
            return _exported(file, weights, metadata)
        return _foreign(file, converters.from_content(weights, file))
    content = safe_reading.read(file)
    if not (isinstance(content, dict) and {"state_dict", "config", "global_step"} <= content.keys()):
        return _foreign(file, converters.from_content(content, file))
    state, saved, step = content["state_dict"], content["config"], content["global_step"]
    if not (isinstance(state, dict) and isinstance(saved, dict) and isinstance(step, int)):
        raise ValueError(f"{file} is not a checkpoint of this framework: its parts are of the wrong kind")
    if step < 0:
        raise ValueError(f"{file} is not a checkpoint of this framework: it is of step {step}")
    weights = {
        str(key).removeprefix(EMA_PREFIX): value for key, value in state.items() if str(key).startswith(EMA_PREFIX)
    }
    _check(weights, file)
    data = content.get("data")
    config = trust.of_file(saved, file)
    data = None if data is None else str(data)
    pending, monitor = bool(content.get("pending")), content.get("monitor")
    return Checkpoint(file, config, weights, step, pending, data, monitor, content if whole else None)


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights, with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def newest(run: Path) -> Checkpoint | None:
    """The whole checkpoint to go on from: the last, the one before where that is damaged, None where there is none yet.

    Raises:
        ValueError: neither can be read, or `run` is a file and cannot be; or there is only a best one, of which a new
            beginning would take the place.
    """
    if run.is_file():
        return load(run, whole=True)
    files = [file for name in (LAST, PREVIOUS) if (file := run / "checkpoints" / name).exists()]
    complaint = None
    for file in files:
        try:
            found = load(file, whole=True)
        except ValueError as error:
            complaint = complaint or error
            continue
        if complaint:
            warn(f"{complaint}; going on from {file.name}, step {found.step}")
        return found
    best = run / "checkpoints" / BEST
    instead = f"resume={best} goes on from the best" if best.exists() else ""
    if complaint:
        raise ValueError(f"{complaint}; {instead}") if instead else complaint
    if instead:
        raise ValueError(f"{run} has lost its last checkpoint: {instead}")
    return None


def write(content: dict[str, Any], file: Path) -> None:
    """Write `file`, on the disk when this returns; the one before stays as previous.ckpt. At any moment one is whole.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    buffer = io.BytesIO()  # torch's own writer would not say that the disk is full
    torch.save(content, buffer)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as out:
        out.write(buffer.getbuffer())
        out.flush()
        os.fsync(out.fileno())  # here, too: where the disk is full, the previous one must stay
        if file.exists():
            name_again(file, file.with_name(PREVIOUS))  # a move would leave a moment without a last.ckpt


def misfit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """How weights differ from a network's own in names, shapes, and whether they are whole numbers: the first few, and
    how many; None if they do not.
    """
    shared = weights.keys() & expected.keys()
    differing = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {list(weights[key].shape)} for {list(value.shape)}"
            for key, value in expected.items()
            if key in shared and weights[key].shape != value.shape
        ],
        "of another kind": [
            f"{key} {weights[key].dtype} for {value.dtype}"
            for key, value in expected.items()
            if key in shared and weights[key].is_floating_point() != value.is_floating_point()
        ],
    }
    parts = [
        f"{len(found)} {how} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for how, found in differing.items()
        if found
    ]
    return "; ".join(parts) or None


def check_weights(weights: Mapping[str, Any]) -> None:
    """Check that weights are tensors of finite real numbers, or of whole ones, as a network may count in.

    Raises:
        ValueError: one is not.
    """
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{printable(name)} is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_meta or not (value.is_floating_point() or value.dtype in INTEGERS):
            raise ValueError(f"{printable(name)} does not hold real numbers ({value.dtype})")
        if not value.isfinite().all():
            raise ValueError(f"{printable(name)} holds numbers that are not finite")


def _check(weights: Mapping[str, Any], file: Path) -> None:
    try:
        check_weights(weights)
    except ValueError as error:
        raise ValueError(f"{file} is refused: {error}") from None


def _exported(file: Path, weights: dict[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    try:
        saved, step = json.loads(metadata["config"]), int(metadata["global_step"])
    except (ValueError, RecursionError):
        saved, step = None, -1
    if not isinstance(saved, dict) or step < 0:
        raise ValueError(f"{file} is an exported model whose description cannot be read")
    _check(weights, file)
    return Checkpoint(file, trust.of_file(saved, file), weights, step)


def _foreign(path: Path, found: converters.Converted) -> Checkpoint:
    _check(found.weights, path)
    config = {"foreign": found.layout, "stated": found.stated, "assumed": found.assumed}
    return Checkpoint(path, config, found.weights, found.step)
