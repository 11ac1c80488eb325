"""Where runs, evaluations and figures go."""

import os

import pytest
from filelock import FileLock

from ddpm.config.compose import compose
from ddpm.runs import folders


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "now")
    made = [folders.create(tmp_path / "digits") for _ in range(3)]
    assert [folder.name for folder in made] == ["now", "now_2", "now_3"]
    assert all(folder.is_dir() and folder.is_absolute() for folder in made)


def test_a_folder_that_holds_something_is_not_claimed(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert folders.claim(tmp_path) == tmp_path
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"is not empty.*choose another folder with out="):
        folders.claim(tmp_path)


def test_a_link_to_nothing_is_not_claimed(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(FileExistsError, match="link is a link to nothing"):
            folders.claim(folder)


def test_a_run_starts_with_its_configuration_and_is_the_latest(workspace):
    first = folders.start(compose(["out=first"]))
    assert compose(["out=first"]).name in (first / "config.yaml").read_text()
    assert (workspace / "runs/latest").resolve() == first.resolve()
    second = folders.start(compose([]))
    assert second.parent == workspace / "runs/digits"
    assert (workspace / "runs/latest").resolve() == second
    assert not os.path.isabs(os.readlink(workspace / "runs/latest"))  # runs/ can be moved


def test_other_ranks_make_nothing(workspace, monkeypatch):
    monkeypatch.setattr(folders, "is_rank_zero", lambda: False)
    folders.start(compose(["out=mine"]))
    folders.evaluation_folder(None, "model", "elsewhere", "0123")
    folders.figures_folder(None, "model", None)
    assert list(workspace.iterdir()) == []


def test_evaluations_and_figures_lie_with_their_run(workspace):
    run = workspace / "run"
    assert folders.evaluation_folder(run, "name", None, "0123") == run / "evaluations/0123"
    assert folders.evaluation_folder(None, "name", None, "0123") == workspace / "runs/evaluations/name/0123"
    assert folders.evaluation_folder(run, "name", "out", "0123") == workspace / "out"
    assert folders.figures_folder(run, "name", None) == run / "figures"
    assert folders.figures_folder(None, "name", None) == workspace / "runs/figures/name"


def test_two_processes_do_not_share_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PATIENCE", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(OSError, match="another process is at work"):
        folders.lock(tmp_path)


def test_a_folder_in_which_a_process_is_at_work(tmp_path):
    assert not folders.is_locked(tmp_path / "none")
    assert not folders.is_locked(tmp_path)
    with FileLock(tmp_path / ".lock"):
        assert folders.is_locked(tmp_path)
    assert not folders.is_locked(tmp_path)


def test_links_deep_in_a_folder_that_is_named_for_files_are_its_own(tmp_path):
    """A report may go into a project's folder, which has links to anywhere; where its own files go, there is none."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "pictures").symlink_to(tmp_path)
    assert folders.writable(project, deep=False) == project
    with pytest.raises(PermissionError, match="leads out"):
        folders.writable(project)
    (project / "report.html").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="leads out"):
        folders.writable(project, deep=False)
