"""`python -m ddpm report FOLDER...` and `python -m ddpm export ckpt=PATH to=FOLDER`."""

import importlib
import sys

from ddpm.config import command
from ddpm.config.errors import RequestError
from ddpm.config.grammar import nearest

COMMANDS = {"report": "ddpm.report.command", "export": "ddpm.checkpoints.export"}


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in COMMANDS:
        raise RequestError(f"there is no command {name!r}{nearest(name, list(COMMANDS))}; known: {', '.join(COMMANDS)}")
    code: int = importlib.import_module(COMMANDS[name]).main(sys.argv[2:])
    return code


if __name__ == "__main__":
    command.guarded(main)
