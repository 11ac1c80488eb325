"""Whatever bytes a reader is given, it reads them or refuses them in words: inputs are mutated for some seconds.

Coverage of our code guides the mutation, which begins from the inputs stored in fuzz/corpus and from one seed: a change
is not refused for what it did not touch. `make fuzz` takes longer, and another seed each time.
"""

import os
import re
import subprocess
import sys

import pytest
from commands import ROOT

SECONDS = "1"  # for each reader


def test_no_bytes_crash_a_reader():
    pytest.importorskip("atheris", reason="atheris has wheels for Linux only")
    command = [sys.executable, str(ROOT / "fuzz" / "run.py"), SECONDS]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "SEED": "1"})
    assert done.returncode == 0, done.stdout + done.stderr[-20_000:]
    tried = re.findall(r"^(\w+): ([\d,]+) inputs", done.stdout, re.MULTILINE)
    assert len(tried) == 12
    assert all(int(count.replace(",", "")) >= 10 for _, count in tried), tried
