"""Denoising diffusion probabilistic models: `ddpm COMMAND ...`, which is `python -m ddpm COMMAND ...`.

    ddpm train [-m] [GROUP=OPTION] [KEY=VALUE] ...     a run; with -m, a sweep: one run for each combination
    ddpm evaluate ckpt=PATH [KEY=VALUE] ...            IS, FID and bits/dim of a checkpoint, or figures=[...]
    ddpm inspect data.path=FOLDER [KEY=VALUE] ...      a look at pictures of your own, and settings to train on them
    ddpm report FOLDER...                              runs to a table and a page
    ddpm diagnose FOLDER...                            what looks wrong with runs, in sentences
    ddpm export ckpt=PATH to=DIR                       a checkpoint for other tools
    ddpm steps ckpt=PATH steps=N                       times for a sampler, learned for a checkpoint
    ddpm wandb-workspace [project=NAME]                a view of a W&B project: the charts of docs/charts.md
    ddpm --version

`ddpm train --help` and `ddpm evaluate --help` list the settings. --config-dir=DIR adds groups and options of your own.
"""

import ast
import importlib.util
import signal
import sys
from pathlib import Path
from typing import NoReturn

COMMANDS = {
    "train": "ddpm.commands.train",
    "evaluate": "ddpm.commands.evaluate",
    "inspect": "ddpm.commands.inspect",
    "report": "ddpm.commands.report",
    "diagnose": "ddpm.commands.diagnose",
    "export": "ddpm.commands.export",
    "steps": "ddpm.commands.steps",
    "wandb-workspace": "ddpm.commands.wandb_workspace",
}
OVER_CONF = ("train", "evaluate")  # whose --help is Hydra's, with all groups and options


def main(argv: list[str]) -> int:
    """Run the command that the first word names, with the others.

    Returns:
        The exit code.
    """
    from ddpm.config import command
    from ddpm.config.errors import RequestError
    from ddpm.config.grammar import nearest

    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name == "--version":
        print("ddpm", importlib.import_module("ddpm").__version__)
        return 0
    if name in command.COMPLETION:
        return command.complete(argv, list(COMMANDS))
    if name not in COMMANDS:
        raise RequestError(f"there is no command {name!r}{nearest(name, list(COMMANDS))}; known: {', '.join(COMMANDS)}")
    rest = command.with_own_conf(rest)
    if name not in OVER_CONF and {"-h", "--help"} & {*rest}:
        print(_docstring(COMMANDS[name]))
        return 0
    code: int = importlib.import_module(COMMANDS[name]).main(rest)
    return code


def _docstring(module: str) -> str | None:
    """A module's docstring by its source: to import the module may take seconds."""
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    return ast.get_docstring(ast.parse(Path(spec.origin).read_bytes()))


def start(*words: str) -> NoReturn:
    """Run the command line of this process, after these words, and exit with the code that its end deserves."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command takes over: Ctrl-C while Python still imports
    from ddpm.config import command

    command.guarded(lambda: main([*words, *sys.argv[1:]]))


if __name__ == "__main__":
    start()
