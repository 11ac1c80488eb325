"""Mutate what a reader reads, guided by coverage: `python fuzz/run.py TARGET [SECONDS]`, which needs atheris."""

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ddpm", "targets"]):
    import targets


def main() -> None:
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(targets.TARGETS[name][1]()):
        (corpus / str(number)).write_bytes(seed)
    found = Path(__file__).parent / "found"
    found.mkdir(exist_ok=True)
    settings = [
        f"-max_total_time={seconds}",
        "-max_len=20000",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={found}/{name}-",
    ]
    atheris.Setup([sys.argv[0], *settings, str(corpus)], lambda content: targets.attempt(name, content))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
