"""Mutate what readers read, guided by coverage: `python fuzz/run.py SECONDS [TARGET ...]`, which needs atheris.

Each target has SECONDS, and a few inputs at least, in a fork of this process, and begins with the inputs of
`fuzz/corpus/TARGET`. An input that is a finding is kept as `fuzz/found/TARGET-*`, and the exit code is then 1. With
`KEEP=1` in the environment, small inputs that reach something new join the corpus; `SEED=1` mutates in the same order
every time.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ddpm", "targets"]):
    import targets

CORPUS, FOUND = Path(__file__).parent / "corpus", Path(__file__).parent / "found"
FEWEST = 10  # inputs of a target, however busy the machine is
MOST, LARGEST = 40, 2000  # inputs of a target that are kept, and their bytes


def fuzz(name: str, seconds: str, corpus: Path) -> None:
    """Mutate inputs of a target; this ends the process."""
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(dir=corpus.parent)
    count, began = 0, time.monotonic()

    def attempt(content: bytes) -> None:
        nonlocal count
        count += 1
        targets.attempt(name, content)
        if count >= FEWEST and time.monotonic() - began > float(seconds):
            print(f"{name}: {count:,} inputs", flush=True)
            os._exit(0)

    seed = [f"-seed={seed}"] if (seed := os.environ.get("SEED")) else []
    settings = [*seed, "-max_len=20000", "-rss_limit_mb=4096", "-verbosity=0", f"-artifact_prefix={FOUND}/{name}-"]
    atheris.Setup([sys.argv[0], *settings, str(corpus)], attempt)
    atheris.Fuzz()


def main() -> int:
    seconds, names = sys.argv[1], sys.argv[2:] or list(targets.TARGETS)
    FOUND.mkdir(exist_ok=True)
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            corpus = Path(place) / "corpus"
            if (CORPUS / name).is_dir():
                shutil.copytree(CORPUS / name, corpus)
            corpus.mkdir(exist_ok=True)
            for number, seed in enumerate(targets.TARGETS[name][1]()):
                (corpus / f"seed{number}").write_bytes(seed)
            before = set(corpus.iterdir())
            if (child := os.fork()) == 0:
                fuzz(name, seconds, corpus)
            if os.waitpid(child, 0)[1] != 0:
                failed.append(name)
            if os.environ.get("KEEP"):
                kept = CORPUS / name
                kept.mkdir(parents=True, exist_ok=True)
                for new in sorted(set(corpus.iterdir()) - before, key=lambda file: file.stat().st_size):
                    if new.stat().st_size <= LARGEST and len(list(kept.iterdir())) < MOST:
                        shutil.copy(new, kept)
    if failed:
        print(f"findings in {', '.join(failed)}: see {FOUND}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
