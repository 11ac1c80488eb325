"""A saved view of a W&B project with the charts that docs/charts.md describes.

    ddpm wandb-workspace [project=ddpm] [entity=NAME] [name=ddpm]

`entity` is the user or team whose project it is, by default the one that W&B takes runs for. Each call makes a view.
"""

from ddpm.config.errors import RequestError, request_errors
from ddpm.config.grammar import split_keys
from ddpm.messages import say

KEYS = ("project", "entity", "name")


def main(arguments: list[str]) -> int:
    """Make the view.

    Returns:
        The exit code.

    Raises:
        RequestError: an argument is wrong, a package or a key is missing, or W&B does not take it.
    """
    asked, others = split_keys(arguments, KEYS)
    if others:
        raise RequestError(f"{others[0]} is none of {', '.join(f'{key}=' for key in KEYS)}")
    with request_errors():
        from ddpm.loggers import workspace

        workspace.require()
        entity = asked.get("entity") or workspace.account()
        view = workspace.workspace(entity, asked.get("project", "ddpm"), asked.get("name", workspace.NAME))
        say(f"W&B view: {workspace.save(view)}")
    return 0
