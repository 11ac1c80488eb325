"""The README's commands are real: the Python ones run at debug=smoke, the make targets exist."""

import re
import shlex
import subprocess

import pytest
from commands import ROOT, Fork, run

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]


def test_make_targets_exist():
    targets = [command[1] for command in COMMANDS if command[0] == "make"]
    assert targets == ["train", "test"]
    subprocess.run(["make", "-n", *targets, "test-all", "lint", "format"], cwd=ROOT, check=True, capture_output=True)


def test_python_commands_run_in_order(workspace, capsys):
    commands = [command[1:] for command in COMMANDS if command[0] == "python"]
    assert len(commands) >= 4
    for script, *arguments in commands:
        if "-m" in arguments and "glob" in arguments[-1]:
            continue  # below: six cells
        smoke = ["logger=csv", *["debug=smoke"] * ("debug=smoke" not in arguments)]
        if arguments and arguments[-1].startswith("resume="):
            smoke = []  # they would be another cell of that sweep
        if script == "train.py" and not any(word.startswith(("recipe=swiss_roll", "resume=")) for word in arguments):
            smoke += ["network.channels=8", "network.groups=4"]
        if script == "-m":
            run(script, *arguments, cwd=workspace)
        else:
            Fork(script, *arguments, *smoke, cwd=workspace).wait(timeout=300)
    assert (workspace / "runs/sweeps/latest/report.html").exists()
    (example,) = EXAMPLES
    assert '"max_steps=500"' in example
    capsys.readouterr()
    small = '"debug=smoke", "logger=csv", "schedule.T=50", "sampler.steps=10"'
    exec(example.replace('"max_steps=500"', small).replace("steps=50", "steps=10"), {})
    *_, bits = capsys.readouterr().out.splitlines()
    assert 1 < float(bits) < 40  # per dimension, of a model of six steps


@pytest.mark.slow
def test_table_2_runs(workspace):
    run("train.py", "-m", "experiment=glob(table2_*)", "debug=smoke", "logger=csv", cwd=workspace)
    assert len((workspace / "runs/sweeps/latest/report.csv").read_text().splitlines()) == 7


def test_the_files_that_contributing_names_exist():
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 14
    for row in rows:
        _, what, source, conf, tests, _ = row.split("|")
        named = [ROOT / "src/ddpm" / path for path in re.findall(r"`([a-z_]+/[a-z_]*(?:\.py)?)`", source)]
        named += [ROOT / "conf" / path for path in re.findall(r"`([a-z_]+/)`", conf)]
        folder = ""
        for path in re.findall(r"`([a-z_/0-9]+(?:\.py|/))`", tests):
            folder = path.rpartition("/")[0] or folder
            named.append(ROOT / "tests" / folder / path.rpartition("/")[2])
        assert named, what
        assert not [str(path) for path in named if not path.exists()], what
