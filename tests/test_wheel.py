"""The wheel and the source distribution: the same bytes each time, and whole: installed elsewhere, everything works."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from commands import ROOT

CONF = {file.relative_to(ROOT).as_posix() for file in (ROOT / "conf").rglob("*.yaml")}


def build(to):
    """Both, from the files that git tracks or would track."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1600000000"}
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(to)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    return {file.name: file for file in to.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("first"))


def test_they_are_the_same_bytes_each_time(built, tmp_path):
    again = build(tmp_path)
    assert sorted(built) == sorted(again)
    assert {name.rpartition(".")[2] for name in built} == {"gz", "whl"}
    for name, file in built.items():
        assert file.read_bytes() == again[name].read_bytes()


def test_conf_is_in_both(built):
    for file in built.values():
        if file.suffix == ".whl":
            names = set(zipfile.ZipFile(file).namelist())
            assert {f"ddpm/{name}" for name in CONF} <= names
            assert {"ddpm/report/page.html", "ddpm/py.typed"} <= names
            distribution = "-".join(file.name.split("-")[:2])
            assert {name.partition("/")[0] for name in names} == {"ddpm", f"{distribution}.dist-info"}
        else:
            with tarfile.open(file) as archive:
                names = {name.partition("/")[2] for name in archive.getnames()}
            assert CONF | {"train.py", "evaluate.py", "README.md", "pyproject.toml"} <= names


@pytest.mark.slow
def test_installed_in_an_empty_environment_it_trains_sweeps_evaluates_and_reports(built, tmp_path):
    """The environment has the wheel alone, and borrows the libraries that it needs from this one."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    wheel = next(file for file in built.values() if file.suffix == ".whl")
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    work = tmp_path / "empty"
    work.mkdir()

    def ddpm(*words):
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run([home / "bin" / "ddpm", *words], cwd=work, capture_output=True, text=True, env=own)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert ddpm("--version").split() == ["ddpm", wheel.name.split("-")[1]]
    small = ["debug=smoke", "network.channels=8", "network.groups=4", "logger=csv"]
    printed = ddpm("train", "-m", *small, "seed=1,2", "evaluate_after=false")
    assert "2 cells" in printed
    run = next((work / "runs/sweeps/latest").resolve().glob("000_*/config.yaml")).parent
    assert f"results: {run}" in ddpm("evaluate", f"ckpt={run}", "evaluation.metrics=[bits_per_dim]")
    where = subprocess.run(
        [python, "-c", "import ddpm, sys; print(ddpm.__file__, ddpm.load(sys.argv[1]).q.T)", str(run)],
        cwd=work, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert Path(where[0]).is_relative_to(home)
    assert where[1] == "20"
