import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddpm.data import cache
from ddpm.data.dataset import DataError

KEY = {"source": "here", "size": 2}
ROWS = np.arange(12, dtype=np.int64).reshape(3, 4)


def build(writer):
    writer.append("rows", ROWS[:2])
    writer.append("rows", ROWS[2:])
    writer.append("names", np.array([b"a", b"bcd"]))


def never(writer):
    raise AssertionError("built again")


def leftovers(root: Path) -> list[str]:
    return [path.name for path in (root / "cache").iterdir() if not path.name.endswith(".lock")]


def test_written_once_and_read_back(tmp_path):
    first = cache.arrays(tmp_path, "x", KEY, build)
    again = cache.arrays(tmp_path, "x", KEY, never)
    for arrays in (first, again):
        assert np.array_equal(arrays["rows"], ROWS)
        assert arrays["names"].tolist() == [b"a", b"bcd"]
    assert cache.tensor(again["rows"]).tolist() == ROWS.tolist()


def test_another_key_is_another_cache(tmp_path):
    cache.arrays(tmp_path, "x", KEY, build)
    other = cache.arrays(tmp_path, "x", {**KEY, "size": 3}, lambda writer: writer.append("rows", ROWS + 1))
    assert np.array_equal(other["rows"], ROWS + 1)


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(writer):
        build(writer)
        raise DataError("the source is broken")

    with pytest.raises(DataError, match="the source is broken"):
        cache.arrays(tmp_path, "x", KEY, fail)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "grown", "gone", "no index", "half an index", "another key"])
def test_a_cache_that_does_not_match_is_named(tmp_path, damage):
    cache.arrays(tmp_path, "x", KEY, build)
    folder = cache.folder_for(tmp_path, "x", KEY)
    rows, index = folder / "rows.raw", folder / "index.json"
    match damage:
        case "cut":
            rows.write_bytes(rows.read_bytes()[:-1])
        case "grown":
            rows.write_bytes(rows.read_bytes() + b"x")
        case "gone":
            rows.unlink()
        case "no index":
            index.unlink()
        case "half an index":
            index.write_text(index.read_text()[:30])
        case "another key":
            index.write_text(json.dumps({**json.loads(index.read_text()), "key": {}}))
    with pytest.raises(DataError) as error:
        cache.arrays(tmp_path, "x", KEY, never)
    assert str(folder) in str(error.value)
    assert "delete the folder" in str(error.value)


SLOW_WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from ddpm.data import cache
def build(writer):
    for row in range(10_000):
        writer.append("rows", np.full((1, 1000), row))
        if row == 50:
            print("writing", flush=True)
        time.sleep(0.001)
cache.arrays(Path(sys.argv[1]), "x", {"source": "here", "size": 2}, build)
"""


@pytest.mark.long
def test_a_killed_writer_leaves_nothing_that_is_believed(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert leftovers(tmp_path)[0].endswith(".partial")  # half a cache, under a name that nobody reads
    assert np.array_equal(cache.arrays(tmp_path, "x", KEY, build)["rows"], ROWS)
    assert leftovers(tmp_path) == [cache.folder_for(tmp_path, "x", KEY).name]  # and it is swept up


@pytest.mark.long
def test_of_two_processes_one_builds_and_one_waits(tmp_path):
    script = SLOW_WRITER.replace("10_000", "500")
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(said) == ["", "writing\n"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot write .*root.*data.root=FOLDER"):
        cache.arrays(tmp_path / "root", "x", KEY, build)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_disk(tmp_path):
    def fill(partial):
        with open("/dev/full", "w") as file:
            file.write("x")

    with pytest.raises(DataError, match=r"No space left on device\): make room"):
        cache.once(tmp_path / "x", fill)
    assert not (tmp_path / "x").exists()


def test_a_file_that_cannot_be_read_is_not_the_cache_s_fault(tmp_path):
    def fill(writer):
        (tmp_path / "source").read_bytes()

    with pytest.raises(DataError, match=r"^cannot read .*/source: No such file or directory$"):
        cache.arrays(tmp_path / "root", "some", {}, fill)
    assert not list((tmp_path / "root").rglob("*.partial"))


def test_a_disk_that_is_full_while_it_is_built_is_the_cache_s(tmp_path):
    def fill(writer):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"^cannot write .*root.* \(No space left on device\): make room"):
        cache.arrays(tmp_path / "root", "some", {}, fill)
