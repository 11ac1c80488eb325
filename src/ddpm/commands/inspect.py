"""Look at a folder of pictures, and propose settings for training on them.

    ddpm inspect data.path=FOLDER [budget=10min] [size=PIXELS] [out=DIR] [GROUP=OPTION] [KEY=VALUE] ...

It takes what `ddpm train recipe=own` takes, tries what it proposes for seconds, and trains nothing. The report and
a contact sheet go to DIR, by default a new folder under runs/inspections/.
"""

from pathlib import Path

from ddpm.config.errors import RequestError, request_errors
from ddpm.config.grammar import parse, quote_paths, split_keys
from ddpm.config.recipes import proposes
from ddpm.files import whole_content
from ddpm.messages import say
from ddpm.runs import folders


def main(arguments: list[str]) -> int:
    """Write the report that the arguments ask for.

    Returns:
        The exit code.

    Raises:
        RequestError: an argument is wrong, the pictures cannot be read, or the budget is too small for them.
    """
    own, asked = split_keys(quote_paths(arguments), ("out",))
    if "recipe" not in {override.key_or_group for override in parse(asked)}:
        asked = ["recipe=own", *asked]
    if not proposes(asked):
        raise RequestError("settings are proposed for recipe=own with a budget: leave recipe= and budget=null away")
    with request_errors():
        from ddpm.own_pictures.propose import REPORT, SHEET, Proposal

        if own.get("out"):
            folders.check_free(Path(own["out"]))
        made = Proposal(asked)
        say(*made.seen())
        made.make()
        folder = folders.claim(Path(own["out"])) if own.get("out") else folders.create(folders.ROOT / "inspections")
        with whole_content(folder) as new:
            made.write_sheet(new)
            made.write(new)
    say(*made.report(), f"contact sheet: {folder / SHEET}", f"report: {folder / REPORT}")
    return 0
