"""A file has its old content or its new one at any moment, and another name even where there are no hard links."""

import errno
import os

import pytest

from ddpm import files


@pytest.fixture
def without_links(monkeypatch):
    """The file system, as many of a network, has no hard links."""

    def refuse(source, name):
        raise OSError(errno.EPERM, "Operation not permitted", str(source))

    monkeypatch.setattr(os, "link", refuse)


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "file"
    made.write_text("new")
    return made


def test_another_name_is_given_at_once_whatever_a_killed_process_has_left(file, tmp_path):
    name = tmp_path / "name"
    name.write_text("old")
    (tmp_path / ".name.part").touch()
    for _ in range(2):  # the second time it has that name already
        files.name_again(file, name)
        assert name.samefile(file)
        assert {path.name for path in tmp_path.iterdir()} == {"file", "name"}


def test_another_name_is_that_of_a_copy_where_there_are_no_links(file, tmp_path, without_links):
    name = tmp_path / "name"
    for _ in range(2):
        files.name_again(file, name)
        assert name.read_text() == "new"
        assert not name.samefile(file)
        assert {path.name for path in tmp_path.iterdir()} == {"file", "name"}


def test_a_copy_that_fails_leaves_what_had_the_name(file, tmp_path, without_links, monkeypatch):
    name = tmp_path / "name"
    name.write_text("old")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        files.name_again(file, name)
    assert name.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "name"}


def test_processes_that_write_the_same_file_have_a_hidden_one_each(tmp_path, monkeypatch):
    """Else one would move away what the other still writes."""
    path = tmp_path / "results.json"
    with files.whole_file(path, shared=True) as first:
        first.write(b"fir")
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: -1)
            files.write_whole(path, "second", shared=True)
        assert path.read_text() == "second"
        first.write(b"st")
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_error_of_an_open_file_names_it(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/results\.json'$"):
        files.write_whole(tmp_path / "results.json", "new")


def fill(folder, *names):
    for name in names:
        (folder / name).mkdir()


def test_a_folder_is_filled_at_once_or_not_at_all(tmp_path):
    """Whatever a killed process has left, and beside hidden files of the user's."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part" / "half").touch()
    with pytest.raises(FileExistsError), files.whole_content(tmp_path) as new:
        fill(new, "half", "half")
    assert [path.name for path in tmp_path.iterdir()] == [".git"]
    with files.whole_content(tmp_path) as new:
        fill(new, "folder", "folder/another")
    assert {path.name for path in tmp_path.iterdir()} == {".git", "folder"}
    assert (tmp_path / "folder" / "another").is_dir()
