"""The readers of bytes that may come from strangers, each as a function of bytes, and seeds to mutate.

`python fuzz/run.py TARGET` mutates them under coverage guidance (`make fuzz`); tests/test_fuzz.py mutates them blindly.
A reader may refuse what it is given, with one of `REFUSALS`; anything else that it raises is a finding.
"""

import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from ddpm.checkpoints import checkpoint
from ddpm.config import trust
from ddpm.config.errors import RequestError
from ddpm.config.saved import compose_saved, read_config
from ddpm.data.archive import unpacked
from ddpm.data.mnist import read_idx
from ddpm.data.picture import PictureTransform
from ddpm.report import collect, page, table
from ddpm.runs import records

REFUSALS = (ValueError, OSError, RequestError)
STORED = Path(__file__).parents[1] / "tests" / "stored" / "version_0_1"
WEIGHTS = {"conv_in.weight": torch.zeros(8, 1, 3, 3)}
UNET = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": None,
    "sample_size": 8,
    "in_channels": 1,
}


def read_checkpoint(content: bytes, folder: Path) -> None:
    (folder / "some.ckpt").write_bytes(content)
    checkpoint.load(folder / "some.ckpt")


def read_safetensors(content: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)
    checkpoint.load(folder / "model.safetensors")


def read_diffusers(content: bytes, folder: Path) -> None:
    """The configuration of the network, then, behind a zero byte, that of the scheduler."""
    network, _, scheduler = content.partition(b"\0")
    (folder / "config.json").write_bytes(network)
    (folder / "scheduler_config.json").write_bytes(scheduler)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(save(WEIGHTS))
    checkpoint.load(folder)


def read_run_config(content: bytes, folder: Path) -> None:
    (folder / "config.yaml").write_bytes(content)
    compose_saved(trust.of_file(read_config(folder), folder), [])


def read_run_file(name: str) -> Callable[[bytes, Path], None]:
    """A file of a run that a report reads; the report refuses nothing."""

    def read(content: bytes, folder: Path) -> None:
        run = folder / "000_run"
        run.mkdir(exist_ok=True)
        (run / "config.yaml").write_text("seed: 1\nmax_steps: 100\n")
        (folder / name if name.startswith("000") else run / name).write_bytes(content)
        runs = collect.within([folder])
        page.render(table.of(runs), runs, "fuzz", folder)

    return read


def read_plan(content: bytes, folder: Path) -> None:
    (folder / records.PLAN).write_bytes(content)
    try:
        records.is_own_plan(folder)
        records.plan(folder)
    except (KeyError, TypeError, RecursionError):  # which the sweep says in one line
        pass


def read_idx_file(content: bytes, folder: Path) -> None:
    (folder / "images.gz").write_bytes(content)
    read_idx(folder / "images.gz", dimensions=3)


def read_picture(content: bytes, folder: Path) -> None:
    PictureTransform(3, 8, 8, (0, 0, 0))(content)


def read_archive(content: bytes, folder: Path) -> None:
    (folder / "pictures.archive").write_bytes(content)
    unpacked(folder / "pictures.archive", folder / "root")
    outside = [path for path in folder.parent.iterdir() if path != folder]
    assert not outside, outside


FORMATS = (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB"), ("GIF", "P"), ("WEBP", "RGB"), ("TIFF", "L"), ("BMP", "1"))


def pictures() -> list[bytes]:
    """A small picture in several formats and modes."""
    pixels, made = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3), []
    for kind, mode in FORMATS:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind)
        made.append(file.getvalue())
    return made


def archives() -> list[bytes]:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.png", pictures()[0])
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        member = tarfile.TarInfo("a/b.png")
        member.size = len(pictures()[0])
        tar.addfile(member, io.BytesIO(pictures()[0]))
    return [zipped.getvalue(), tarred.getvalue()]


def checkpoints() -> list[bytes]:
    """A checkpoint of ours, with little in it; its parts are stored, so that a mutation reaches them."""
    file = io.BytesIO()
    config = {"name": "some", "data": {"root": "x"}, "choices": {"data": "digits"}}
    content = {"state_dict": {"p_ema.network.w": torch.zeros(3)}, "config": config, "global_step": 1}
    torch.save(content, file)
    return [file.getvalue()]


Target = tuple[Callable[[bytes, Path], None], Callable[[], list[bytes]]]
NETWORK, SCHEDULER = json.dumps(UNET).encode(), b'{"num_train_timesteps": 100, "beta_start": 0.1}'
EXPORTED = {"config": '{"name": "x"}', "global_step": "1"}
RECORD = b'{"overrides": ["seed=1"], "varying": [], "status": "finished", "seconds": 1.5}'
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4])
TARGETS: dict[str, Target] = {
    "checkpoint": (read_checkpoint, checkpoints),
    "safetensors": (read_safetensors, lambda: [save(WEIGHTS, EXPORTED), save(WEIGHTS)]),
    "diffusers": (read_diffusers, lambda: [NETWORK + b"\0" + SCHEDULER]),
    "config": (read_run_config, lambda: [(STORED / "digits" / "config.yaml").read_bytes()]),
    "metrics": (read_run_file("metrics.csv"), lambda: [b"step,train/loss\n20,0.5\n40,0.25\n"]),
    "bound": (read_run_file("bound.csv"), lambda: [b"t,term,term_stderr\n1,0.5,0.1\n2,0.25,0.1\n"]),
    "results": (read_run_file("results.json"), lambda: [(STORED / "digits" / "results.json").read_bytes()]),
    "record": (read_run_file("000_run.json"), lambda: [RECORD]),
    "plan": (read_plan, lambda: [b'{"overrides": ["seed=1,2"], "varying": ["seed"]}']),
    "idx": (read_idx_file, lambda: [gzip.compress(IDX)]),
    "picture": (read_picture, pictures),
    "archive": (read_archive, archives),
}


def attempt(target: str, content: bytes) -> None:
    """Let a reader read; raise what is a finding."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "folder"
        folder.mkdir()
        try:
            TARGETS[target][0](content, folder)
        except REFUSALS as refusal:
            if not str(refusal):
                raise AssertionError("a refusal without a word") from refusal
