"""What the documents tell a reader to type is taken: every command's words make a configuration."""

import re
import shlex

import pytest
from commands import ROOT

from ddpm.config.compose import compose
from ddpm.config.evaluation import compose_evaluation
from ddpm.config.grammar import quote_paths, split_keys
from ddpm.config.saved import compose_saved, plain
from ddpm.config.which import BEST
from ddpm.sweep import grid

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:python (train|evaluate)\.py|\bddpm (train|evaluate))((?: [^`#&|]*)?)")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`([^`\n]*)`")
# What waits for files of others, for a whole sweep, or for a person.
OF_OTHERS = re.compile(r"[<>$]|hydra|--help|install=|recipe=own|init=|ckpt=(?!runs/)|-m resume=")


def commands():
    """Each command of a document that our own words make whole."""
    found = {}
    for document in DOCUMENTS:
        text = document.read_text()
        for typed in [*BLOCK.findall(text), *INLINE.findall(BLOCK.sub("", text))]:
            for line in typed.replace("\\\n", " ").splitlines():
                for match in COMMAND.finditer(line):
                    if not OF_OTHERS.search(match[0]):
                        found.setdefault((match[1] or match[2], match[3].strip()), document.name)
    return [pytest.param(*key, id=f"{name}: {' '.join(key)}") for key, name in found.items()]


@pytest.fixture(scope="module")
def saved():
    """The configuration of the default run, of which most evaluations in the documents are."""
    return plain(compose([]))


@pytest.mark.parametrize(("command", "words"), commands())
@pytest.mark.long
def test_its_words_are_taken(command, words, saved):
    overrides = quote_paths(word for word in shlex.split(words) if word != "-m")
    own, rest = split_keys(grid.first(overrides), ("ckpt", "resume", "which"))
    assert own.get("which", "best") == BEST.removesuffix(".ckpt")
    if command == "evaluate":
        compose_evaluation(saved, rest)
    elif own.get("resume", "auto") == "auto":
        compose(rest)
    else:
        compose_saved(saved, rest)


def test_the_documents_have_commands():
    assert len(commands()) > 40
