"""No two runs have the same GPU at the same time, and none waits for ever."""

import os
import threading
import time

import pytest
from omegaconf import OmegaConf

from ddpm.sweep import gpus, process


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-ab/1, 7")
    return ["4", "GPU-ab/1", "7"]


def test_runs_of_one_two_and_three_gpus_take_turns(three, tmp_path):
    assert gpus.visible() == three
    taken, most, done = [], 0, []
    guard = threading.Lock()

    def one(count):
        nonlocal most
        with gpus.borrowed(count, tmp_path / "gpus") as own:
            with guard:
                assert len(own) == count
                assert not set(own) & set(taken)
                taken.extend(own)
                most = max(most, len(taken))
            time.sleep(0.05)
            with guard:
                for name in own:
                    taken.remove(name)
                done.append(count)

    counts = [1, 2, 3, 1, 1, 2, 1]
    threads = [threading.Thread(target=one, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == sorted(counts)
    assert most == 3


@pytest.mark.parametrize(
    ("trainer", "count"),
    [({"devices": "auto"}, 1), ({"devices": 2}, 2), ({"devices": [0, 2, 3]}, 3), ({"devices": -1}, 1),
     ({"devices": 2, "accelerator": "cpu"}, 0)],
)  # fmt: skip
def test_what_a_run_needs(trainer, count):
    assert gpus.needed(OmegaConf.create({"trainer": {"accelerator": "auto", **trainer}})) == count


def test_a_run_sees_its_own_only(three, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    log = tmp_path / "log"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "said.py").write_text(
        "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], 'RANK' in os.environ, sys.argv[1], flush=True)\n"
        "print('error: no more', file=sys.stderr); sys.exit(3)"
    )
    code, complaint = process.run(["said", "here"], ["GPU-ab/1", "7"], log)
    assert (code, complaint) == (3, "no more")
    assert log.read_text().splitlines() == ["GPU-ab/1,7 False here", "error: no more"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,GPU-ab/1, 7"


@pytest.mark.parametrize(
    ("said", "found"),
    [("", []), ("-1", []), ("NoDevFiles", []), ("2,-1,3", ["2"]), ("GPU-ab,MIG-cd", ["GPU-ab", "MIG-cd"])],
)
def test_the_gpus_are_those_named_before_the_first_that_is_none(said, found, monkeypatch):
    """CUDA's programming guide says so of CUDA_VISIBLE_DEVICES."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert gpus.visible() == found


def test_without_gpus_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpus.borrowed(0, tmp_path / "gpus") as own:
        assert own == []
    assert not (tmp_path / "gpus").exists()
