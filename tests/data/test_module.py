import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from ddpm.data.conditioning import ConditionedBatch, Label, Unconditional
from ddpm.data.dataset import DataError, Dataset, InMemory, Resident
from ddpm.data.digits import Digits
from ddpm.data.folder import Folder
from ddpm.data.module import DataModule, InChunks
from ddpm.data.order import Order


class Numbered(Dataset):
    """Image k is of level k throughout."""

    name = "numbered"
    shape = (1, 2, 2)
    fingerprint = "numbered"

    def __init__(self, train: int = 48, test: int = 11) -> None:
        self.sizes = {"train": train, "test": test}

    def prepare(self) -> None: ...

    def split(self, name):
        return InMemory(torch.arange(self.sizes[name], dtype=torch.uint8)[:, None, None, None].expand(-1, *self.shape))


def placed(module: DataModule, rank: int, world_size: int, step: int = 0) -> DataModule:
    """As if a Trainer of `world_size` processes had it at `step`."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, global_step=step, strategy=strategy)
    return module


def numbers(batch: ConditionedBatch) -> list[int]:
    return batch.values[:, 0, 0, 0].tolist()


def ready(dataset: Dataset, batch_size: int = 12, max_steps: int = 9, **how) -> DataModule:
    module = DataModule(dataset, batch_size, 3, max_steps, **how)
    module.prepare_data()
    module.setup()
    return module


def test_batches_are_those_of_the_order():
    module = ready(Numbered())
    assert [numbers(batch) for batch in module.train_dataloader()] == list(Order(48, 12, 3, 9))
    assert all(batch.values.dtype == torch.uint8 for batch in module.train_dataloader())
    assert len(module.train_dataloader()) == 9


def test_two_processes_share_each_batch_and_every_chunk():
    parts = [placed(ready(Numbered(), chunk=2), rank, 2, step=4) for rank in range(2)]
    train = [[numbers(batch) for batch in part.train_dataloader()] for part in parts]
    assert [a + b for a, b in zip(*train, strict=True)] == list(Order(48, 12, 3, 9, start=4))
    chunks = [{k: numbers(batch) for k, batch in part.val_dataloader()} for part in parts]
    assert list(chunks[0]) == [0, 2, 4]
    assert list(chunks[1]) == [1, 3, 5]
    assert [i for k in range(6) for i in (chunks[0] | chunks[1])[k]] == list(range(11))


@pytest.mark.parametrize(("validated", "expected"), [(None, 11), (5, 5), (8, 8), (12, 11)])
def test_the_first_examples_are_validated_or_all(validated, expected):
    for world_size in (1, 2):
        modules = [ready(Numbered(), chunk=4, validated=validated) for _ in range(world_size)]
        parts = [placed(module, rank, world_size).val_dataloader() for rank, module in enumerate(modules)]
        assert sorted(k for part in parts for _, batch in part for k in numbers(batch)) == list(range(expected))


@pytest.mark.parametrize(("validated", "expected"), [(None, 11), (5, 5), (12, 11)])
def test_as_many_training_examples_are_beside_them(validated, expected, monkeypatch):
    for most in (1000, 3):
        monkeypatch.setattr("ddpm.data.module.LARGEST_SUBSET", most)
        parts = [placed(ready(Numbered(), chunk=4, validated=validated), rank, 2) for rank in range(2)]
        found = sorted((k, n) for part in parts for k, batch in part.train_subset_dataloader() for n in numbers(batch))
        assert found == [(number // 4, number) for number in range(min(expected, most))]


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_processes_validate_the_same_number_of_chunks_some_of_them_empty(world_size, pictures):
    folder = Folder(4, str(pictures), channels=1, held_out=0.275, array_gib=0.0, root=str(pictures.parent / "root"))
    for dataset in (Numbered(), folder):  # 11 to test in memory, and 11 that are decoded when they are needed
        parts = [list(placed(ready(dataset, chunk=4), rank, world_size).val_dataloader()) for rank in range(world_size)]
        assert {len(part) for part in parts} == {-(-3 // world_size)}
        found = {k: batch.values for part in parts for k, batch in part}
        assert [len(found[k]) for k in sorted(found)] == [4, 4, 3] + [0] * (len(found) - 3)
        assert all(images.dtype == torch.uint8 and images.shape[1:] == dataset.shape for images in found.values())
        alone = dict(ready(dataset, chunk=4).val_dataloader())
        assert all(torch.equal(found[k], batch.values) for k, batch in alone.items())


def test_requests_that_cannot_be():
    with pytest.raises(DataError, match=r"12 is too few for 13 processes x 1 .*: use 13 at least"):
        placed(ready(Numbered()), 0, 13).train_dataloader()
    with pytest.raises(DataError, match="too few for 1 processes x 13"):
        ready(Numbered(), accumulate=13)
    with pytest.raises(DataError, match="too few for 4 processes x 4"):
        DataModule(Numbered(), 12, 3, 9, accumulate=4, processes=4)
    with pytest.raises(DataError, match="more than the 48 training examples"):
        ready(Numbered(), batch_size=60)
    with pytest.raises(DataError, match="num_workers=-1"):
        ready(Numbered(), num_workers=-1)
    with pytest.raises(DataError, match="chunk=0"):
        ready(Numbered(), chunk=0)


class Otherwise(Numbered):
    """Its examples are others than its shape and kind say, in one split."""

    def __init__(self, split, change):
        super().__init__()
        self.where, self.change = split, change

    def split(self, name):
        examples = super().split(name)
        return InMemory(self.change(examples.values)) if name == self.where else examples


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("change", [lambda x: x / 255, lambda x: x[..., :1], lambda x: x.expand(-1, 3, -1, -1)])
def test_examples_are_of_the_shape_and_the_kind_of_their_dataset(split, change):
    with pytest.raises(DataError, match=rf"the first {split} example is .* it is torch\.uint8 \[1, 2, 2\]"):
        ready(Otherwise(split, change))


@pytest.fixture
def pictures(tmp_path):
    for k in range(40):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), k, np.uint8)).save(tmp_path / "pictures" / f"{k:02}.png")
    return tmp_path / "pictures"


def test_workers_decode_the_same_batches(pictures):
    def batches(array_gib, num_workers):
        dataset = Folder(4, str(pictures), channels=1, array_gib=array_gib, root=str(pictures.parent / "root"))
        module = ready(dataset, num_workers=num_workers)
        return [numbers(b) for b in module.train_dataloader()], [numbers(b) for _, b in module.val_dataloader()], module

    train, val, module = batches(1.0, 2)
    assert module.train_dataloader().loader.num_workers == 0  # nothing to decode
    assert "data.root" in module.advice
    *streamed, module = batches(0.0, 2)
    assert streamed == [train, val]
    assert "loader.num_workers (now 2;" in module.advice
    assert "data.array_gib=1" in module.advice


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_is_one_line_from_a_worker_too(pictures, num_workers):
    (pictures / "07.png").write_bytes(b"")
    dataset = Folder(4, str(pictures), array_gib=0.0, root=str(pictures.parent / "root"))
    with pytest.raises(DataError) as error:
        list(ready(dataset, num_workers=num_workers).train_dataloader())
    assert str(error.value).startswith(f"cannot read {pictures / '07.png'}: it is empty; repair")
    assert "\n" not in str(error.value)


class Watcher(L.LightningModule):
    """Trains nothing and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[int, int, list[int]]] = []
        self.validated: list[int] = []

    def training_step(self, batch, batch_idx):
        self.trained.append((self.global_step, batch_idx, numbers(batch)))
        return self.weight * batch.values.float().mean()

    def validation_step(self, batch, batch_idx):
        self.validated += numbers(batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def fit(folder: Path, max_steps: int, accumulate: int, checkpoint: Path | None = None, **how) -> Watcher:
    watcher = Watcher()
    folder.mkdir(exist_ok=True)
    trainer = L.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        val_check_interval=4 * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **how,
    )
    trainer.fit(watcher, DataModule(Numbered(), 12, 3, max_steps, accumulate, chunk=4), ckpt_path=checkpoint)
    return watcher


quiet = pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",
    "ignore:Checkpoint directory:UserWarning",
    "ignore:The dirpath has changed:UserWarning",
)


@quiet
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.long
def test_a_resumed_run_goes_on_where_it_was(tmp_path, accumulate):
    whole = fit(tmp_path / "whole", 9, accumulate)
    assert len(whole.trained) == 9 * accumulate
    assert sorted(whole.validated) == sorted(2 * list(range(11)))  # after steps 4 and 8
    for step in (2, 7):
        rest = fit(tmp_path / "rest", 9, accumulate, tmp_path / "whole" / f"step={step}.ckpt")
        assert rest.trained == whole.trained[step * accumulate :]


@pytest.mark.long
@quiet
def test_a_run_that_ended_can_be_prolonged(tmp_path):
    whole = fit(tmp_path / "whole", 9, 1)
    first = fit(tmp_path / "first", 5, 1)
    second = fit(tmp_path / "second", 9, 1, tmp_path / "first" / "step=5.ckpt")
    assert first.trained + second.trained == whole.trained


TWO_PROCESSES = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from test_module import fit
watcher = fit(Path(sys.argv[2]), 5, 2, devices=2, strategy="ddp")
rank = int(os.environ.get("LOCAL_RANK", 0))
Path(sys.argv[2], f"{rank}.json").write_text(json.dumps([watcher.trained, watcher.validated]))
"""


@pytest.mark.slow
def test_two_real_processes_see_disjoint_halves_that_make_up_the_whole(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    subprocess.run(
        [sys.executable, script, Path(__file__).parent, tmp_path / "run"], check=True, capture_output=True, timeout=300
    )
    (trained_0, validated_0), (trained_1, validated_1) = (
        json.loads((tmp_path / "run" / f"{rank}.json").read_text()) for rank in range(2)
    )
    joined = [a + b for (*_, a), (*_, b) in zip(trained_0, trained_1, strict=True)]
    assert joined == list(Order(48, 12, 3, 5, accumulate=2))
    # Chunks of 4 of 11 examples: 0 and 2 here, 1 and an empty one there.
    assert validated_0 == [0, 1, 2, 3, 8, 9, 10]
    assert validated_1 == [4, 5, 6, 7]


def test_digits_through_the_module():
    module = ready(Digits(), batch_size=128, max_steps=3)
    assert [batch.values.shape for batch in module.train_dataloader()] == [(128, 1, 8, 8)] * 3
    assert sum(len(batch.values) for _, batch in module.val_dataloader()) == 297


def test_examples_on_the_device_make_the_same_batches():
    plain, resident = ready(Numbered()), placed(ready(Numbered(), resident=True), 0, 1)
    resident.setup()
    for a, b in zip(plain.train_dataloader(), resident.train_dataloader(), strict=True):
        assert a.values.dtype == b.values.dtype
        assert torch.equal(a.values, b.values)
    assert [numbers(images) for _, images in plain.val_dataloader()] == [
        numbers(images) for _, images in resident.val_dataloader()
    ]


def test_examples_stay_in_host_memory_unless_there_is_a_gpu():
    assert isinstance(ready(Numbered(), resident="auto").train, InMemory)


def on_a_gpu(module: DataModule) -> DataModule:
    """This is the module as a Trainer on a GPU would have it."""
    placed(module, 0, 1).trainer.strategy.root_device = torch.device("cuda", 0)
    return module


@pytest.mark.parametrize(("free", "kept"), [(4 * 44, []), (4 * 44 + 4, [11]), (4 * 192, [11]), (4 * 192 + 4, [48, 11])])
def test_a_split_stays_on_a_gpu_of_which_it_takes_less_than_a_quarter(free, kept, monkeypatch):
    """An example takes 4 bytes here, and there are 48 to train and 11 to test; `free` is what the GPU has left."""
    found = []

    def resident(examples, device):
        found.append((len(examples), device))
        return examples

    monkeypatch.setattr("ddpm.data.module.Resident", resident)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 30))
    module = on_a_gpu(DataModule(Numbered(), 12, 3, 9, resident="auto"))
    monkeypatch.setattr(module, "_order", lambda: None)
    module.setup()
    assert found == [(n, torch.device("cuda", 0)) for n in kept]


def test_batches_are_pinned_where_they_travel_to_a_gpu(pictures):
    def pinned(module):
        return module.train_dataloader().loader.pin_memory

    module = ready(Numbered())
    assert not pinned(module)
    assert pinned(on_a_gpu(module))
    module.train = Resident(module.train, torch.device("cpu"))
    assert not pinned(module)
    streamed = Folder(4, str(pictures), channels=1, array_gib=0.0, root=str(pictures.parent / "root"))
    loader = ready(streamed, num_workers=2).train_dataloader().loader
    assert (loader.num_workers, loader.persistent_workers) == (2, True)


class Labelled(Numbered):
    """Image k is of class k mod 3."""

    classes = 3

    def split(self, name):
        values = super().split(name).values
        return InMemory(values, values[:, 0, 0, 0].long() % 3)


def test_every_batch_says_what_is_told_of_its_examples():
    module = ready(Labelled(), chunk=4, conditioning=Label(3))
    chunks = [batch for loader in (module.val_dataloader(), module.train_subset_dataloader()) for _, batch in loader]
    for batch in (*module.train_dataloader(), *chunks):
        assert torch.equal(batch.condition.labels, batch.values[:, 0, 0, 0].long() % 3)
    with pytest.raises(DataError, match=r"labels are 0\.\.1"):
        ready(Labelled(), conditioning=Label(2))


def test_a_chunk_that_begins_at_the_end_is_empty(pictures):
    """Pictures that are decoded as they are needed can make no batch of no examples, and are not asked for one."""
    dataset = Folder(4, str(pictures), channels=1, held_out=0.2, array_gib=0.0, root=str(pictures.parent / "root"))
    dataset.prepare()
    for examples in (Numbered(test=8).split("test"), dataset.split("test")):
        chunks = InChunks(examples, 8, 4, Unconditional())
        assert [len(chunks[k][1].values) for k in range(4)] == [4, 4, 0, 0]


def test_what_is_decoded_as_it_is_needed_is_kept_on_no_device(pictures):
    streamed = Folder(4, str(pictures), channels=1, array_gib=0.0, root=str(pictures.parent / "root"))
    assert not isinstance(ready(streamed, resident=True).train, Resident)


class Broken(Numbered):
    """A dataset whose examples cannot be read, and which counts how often it was prepared."""

    prepared = 0

    def prepare(self):
        self.prepared += 1

    def split(self, name):
        class Unreadable(InMemory):
            in_memory, count = False, 48

            def __len__(self):
                return self.count

            def __getitems__(self, indices):
                raise DataError("cannot be read")

        return Unreadable(super().split(name).values)


def test_an_example_that_cannot_be_read_is_told_of_when_it_is_needed():
    """The module looks at the first example before that, but no batch may ask for it, so that its error can wait."""
    module = ready(broken := Broken())
    assert broken.prepared == 1
    with pytest.raises(DataError, match=r"^cannot be read$"):
        next(iter(module.train_dataloader()))
    module.train.count = 1 << 28  # of 4 bytes
    assert module.advice.endswith("data.array_gib=1")
