"""A checkpoint is whole at any moment, the one before is kept, and misfits are told by name."""

import os
import re

import pytest
import torch

from ddpm import files
from ddpm.checkpoints import checkpoint
from ddpm.config.which import BEST


def content(step, **more):
    weights = {"p.network.w": torch.zeros(2), "p_ema.network.w": torch.full((2,), float(step))}
    return {"state_dict": weights, "config": {"name": "some"}, "global_step": step, **more}


@pytest.fixture
def last(tmp_path):
    """The last.ckpt of a run that saved steps 1 and 2."""
    file = tmp_path / "checkpoints" / checkpoint.LAST
    for step in (1, 2):
        checkpoint.write(content(step), file)
    return file


def test_loads_the_averaged_weights_and_what_was_saved_with_them(tmp_path):
    file = tmp_path / "run" / "checkpoints" / checkpoint.LAST
    checkpoint.write(content(7, pending=True, data="some images"), file)
    (tmp_path / "run" / "config.yaml").touch()
    found = checkpoint.load(tmp_path / "run")
    assert (found.step, found.pending, found.data, found.run) == (7, True, "some images", tmp_path / "run")
    assert found.weights.keys() == {"w"}
    assert found.weights["w"].tolist() == [7, 7]


def test_a_folder_that_is_called_checkpoints_makes_no_run(last):
    """Else an evaluation would write into a stranger's project."""
    assert checkpoint.load(last).run is None
    (last.parent.parent / "config.yaml").touch()
    assert checkpoint.load(last).run == last.parent.parent


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hub/models--google--ddpm-cifar10-32/snapshots/267b167d", "google--ddpm-cifar10-32"),
        ("exports/digits/model.safetensors", "digits"),
        ("downloads/theirs.ckpt", "theirs"),
    ],
)
def test_a_checkpoint_is_called_what_its_user_calls_it(file, name, tmp_path):
    assert checkpoint.Checkpoint(tmp_path / file, {}, {}, 0).name == name


def test_the_one_before_stays(last):
    assert checkpoint.load(last).step == 2
    assert checkpoint.load(last.with_name(checkpoint.PREVIOUS)).step == 1
    assert {path.name for path in last.parent.iterdir()} == {checkpoint.LAST, checkpoint.PREVIOUS}


def test_a_disk_that_fails_leaves_what_was_there(last, monkeypatch):
    def fails(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.write(content(3), last)
    test_the_one_before_stays(last)


def test_it_is_on_the_disk_before_it_takes_the_name(last, monkeypatch):
    seen = []

    def note(descriptor):
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), checkpoint.load(last).step))

    monkeypatch.setattr(os, "fsync", note)
    checkpoint.write(content(3), last)
    folder = str(last.parent)  # with the name of the previous one, and then with its own
    assert list(dict.fromkeys(seen)) == [(str(last.with_name(".last.ckpt.part")), 2), (folder, 2), (folder, 3)]


def test_the_newest_that_can_be_read_is_gone_on_with(last, capsys):
    run = last.parent.parent
    assert checkpoint.newest(run).step == 2
    last.write_bytes(last.read_bytes()[:-100])
    assert checkpoint.newest(run).step == 1
    assert "warning:" in capsys.readouterr().err
    last.with_name(checkpoint.PREVIOUS).write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        checkpoint.newest(run)


def test_nothing_to_go_on_with(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def test_misfits_are_named():
    fits = {"a": torch.zeros(2), "b": torch.zeros(3)}
    assert checkpoint.misfit(fits, fits) is None
    said = checkpoint.misfit({"a": torch.zeros(1), "c": torch.zeros(3)}, fits)
    assert said == "1 missing (b); 1 unexpected (c); 1 of another shape (a [1] for [2])"


def test_a_run_that_has_lost_its_last_checkpoint_does_not_begin_anew_over_its_best(last):
    run, best = last.parents[1], last.with_name(BEST)
    files.name_again(last, best)
    last.unlink()  # another name of the same file
    last.write_bytes(b"")
    last.with_name(checkpoint.PREVIOUS).unlink()
    for complaint in ("last.ckpt", "has lost its last checkpoint"):
        with pytest.raises(ValueError, match=rf"{complaint}.*resume={re.escape(str(best))} goes on from the best"):
            checkpoint.newest(run)
        last.unlink(missing_ok=True)
    assert checkpoint.newest(best).step == 2
