"""Commands as a user starts them: processes of their own, in a directory of their own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(script, *arguments, cwd, code=0, timeout=300):
    """The finished process, which must end with `code`; a script of the root, or `-m` and a module."""
    command = [sys.executable, script if script == "-m" else str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done
