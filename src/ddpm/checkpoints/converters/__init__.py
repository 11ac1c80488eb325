"""Weights that other codebases saved, under our names, and what their files say of the model in the words of conf/.

One module per layout. Key names and conventions are facts about these formats; no code of theirs is used or run.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ddpm.checkpoints.converters import diffusers
from ddpm.checkpoints.converters.converted import Converted as Converted
from ddpm.checkpoints.converters.improved_diffusion import split_qkv
from ddpm.config.groups import options_of
from ddpm.config.targets import target_of
from ddpm.instantiate import resolve

__all__ = ["Converted", "from_content", "from_folder", "is_folder", "split_qkv"]


@runtime_checkable
class Layout(Protocol):
    """What conf/converter/ names: each module here but `diffusers`, whose layout is a folder; or a user's own."""

    NAME: str

    def recognises(self, content: Any) -> bool: ...

    def read(self, content: Any) -> Converted:
        """What the content of such a file says; a ValueError completes "it is NAME's, but"."""


def layouts() -> list[Layout]:
    """Every layout of a file; one at most recognises a content."""
    return [resolve(target_of("converter", option), Layout) for option in options_of("converter")]


def is_folder(folder: Path) -> bool:
    """Whether this is a folder of another codebase's."""
    return diffusers.recognises(folder)


def from_folder(folder: Path) -> Converted:
    """What such a folder holds.

    Raises:
        ValueError: it is incomplete, or its model none that conf/ can describe.
    """
    return diffusers.read(folder)


def from_content(content: Any, file: Path) -> Converted:
    """What a file holds, from its content.

    Raises:
        ValueError: an unknown layout, or a model that conf/ cannot describe.
    """
    for layout in layouts():
        if layout.recognises(content):
            try:
                return layout.read(content)
            except ValueError as error:
                raise ValueError(f"{file} is {layout.NAME}'s, but {error}") from error
    if isinstance(content, dict) and "time_embedding.linear_1.weight" in content:
        raise ValueError(f"{file} holds the weights of a diffusers folder without its config.json: give the folder")
    known = ", ".join(["our own (state_dict, config, global_step)", diffusers.NAME, *(each.NAME for each in layouts())])
    raise ValueError(f"{file} is a checkpoint of no known layout: it holds {_described(content)}; known are {known}")


def _described(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    if not content:
        return "nothing"
    few = ", ".join(map(str, list(content)[:3]))
    return f"{len(content)} keys: {few}" + ", ..." * (len(content) > 3)
