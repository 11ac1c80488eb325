"""Whatever bytes a reader is given, it reads them or refuses them in words: seeds are mutated for seconds each."""

import random
import sys
import time
import warnings

import pytest
from commands import ROOT

sys.path.insert(0, str(ROOT / "fuzz"))
import targets

SECONDS = 1.5
WORDS = (
    b"\0",
    b"\xff" * 8,
    b"-1",
    b"1e999",
    b"nan",
    b"${oc.env:HOME}",
    b"../",
    b"\x1b[2J",
    b"null",
    b"{}",
    b"[[",
    b"\n",
)


def mutated(seed, dice):
    """One to eight changes of bytes: flipped, put in, taken out, doubled, cut off."""
    content = bytearray(seed)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(content) + 1)
        match dice.randrange(5):
            case 0 if at < len(content):
                content[at] = dice.randrange(256)
            case 1:
                content[at:at] = dice.choice(WORDS)
            case 2:
                del content[at : at + dice.choice((1, 2, 8, 64))]
            case 3:
                content[at:at] = content[at : at + dice.choice((1, 8, 64))]
            case 4 if dice.random() < 0.2:
                del content[at:]
    return bytes(content)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_no_bytes_crash_a_reader(target, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    seeds, dice, end, runs = targets.TARGETS[target][1](), random.Random(target), time.monotonic() + SECONDS, 0
    for seed in seeds:
        targets.attempt(target, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.monotonic() < end or runs < 20:
            content = mutated(dice.choice(seeds), dice)
            try:
                targets.attempt(target, content)
            except Exception:
                (tmp_path / "content").write_bytes(content)
                raise
            runs += 1
