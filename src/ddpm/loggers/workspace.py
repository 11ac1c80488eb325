"""A saved view of a W&B project: the charts that docs/charts.md describes, by section, and how runs compare.

It is built by W&B's own package, wandb-workspaces.
"""

from typing import Any

from ddpm.config.errors import first_line
from ddpm.config.groups import group_names
from ddpm.config.roles import Role, role
from ddpm.loggers.weights_and_biases import STEP
from ddpm.metrics import registry

INSTALL = "pip install 'wandb-workspaces>=0.4'"
NAME = "ddpm"
SMOOTH = {"smoothing_type": "exponentialTimeWeighted", "smoothing_factor": 0.9}
# The charts of a training run, in the order in which one looks at them: the title, what is drawn, and how.
TRAINING: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
    ("loss", ["train/loss"], SMOOTH),
    ("loss by quarters of 1..T", [f"train/loss_quarter_{k}" for k in range(1, 5)], {"log_y": True, **SMOOTH}),
    ("gradient's norm, before it is bounded", ["train/gradient_norm"], {"log_y": True}),
    ("learning rate", ["train/learning_rate"], {}),
    ("images per second", ["train/images_per_second"], {}),
    ("share of time waiting for data", ["train/data_wait"], {"range_y": (0, 1)}),
)
# Of held-out images and of training images; by how many timesteps, the name says. And metrics of so many samples.
BITS, OF_SAMPLES = "validation/(train_)?bits_per_dim_.*", "validation/.*_samples"
TERMS = ("validation/terms_by_t", "evaluation/terms_by_t")  # histograms over t
PICTURES = {
    "while training": ["samples", "progressive"],
    "of the data, and of the training": ["data", "training"],
    "of the evaluation": ["evaluation/samples", "evaluation/reverse"],
}
COMPARED = Role.MODEL | Role.TRAINING | Role.SAMPLING  # groups whose options a sweep compares


def require() -> tuple[Any, Any]:
    """wandb-workspaces: its modules of panels and of views.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as views
    except ImportError:
        raise ImportError(f"ddpm wandb-workspace needs an extra dependency: {INSTALL}") from None
    return panels, views


def workspace(entity: str, project: str, name: str = NAME) -> Any:
    """The view, not yet saved.

    Args:
        entity: the user or team whose project it is.
        name: of the view.

    Raises:
        ImportError: wandb-workspaces is not installed.
        ValueError: a name that W&B does not take.
    """
    wr, ws = require()
    measured = [each for each in registry.known() if registry.base_of(each) == each and registry.of(each).in_tables]
    numbers = {each: wr.SummaryMetric(f"evaluation/{each}") for each in measured}
    groups = [group for group in group_names() if role(group) & COMPARED and not role(group) & Role.USER_ONLY]
    columns = [
        *((wr.Config(f"choices.{group}"), group, False) for group in groups),
        (wr.Config("optimizer.lr"), "learning rate", True),
        *((metric, registry.of(each).title, False) for each, metric in numbers.items()),
    ]
    compared = wr.ParallelCoordinatesPlot(
        title="what varies, and what came of it",
        columns=[wr.ParallelCoordinatesPlotColumn(key, title, log=log or None) for key, title, log in columns],
    )
    training = [wr.LinePlot(title=title, x=STEP, y=keys, **how) for title, keys, how in TRAINING]
    validation = [
        wr.LinePlot(title="bits/dim of held-out and of training images", x=STEP, metric_regex=BITS),
        wr.LinePlot(title="a few samples of the averaged weights", x=STEP, metric_regex=OF_SAMPLES),
    ]
    terms = [wr.LinePlot(title=key, x=STEP, y=[key]) for key in TERMS]
    pictures = [wr.MediaBrowser(title=title, media_keys=keys) for title, keys in PICTURES.items()]
    bars = [wr.BarPlot(title=registry.of(each).title, metrics=[metric]) for each, metric in numbers.items()]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            ws.Section(name="validation", panels=validation, is_open=True),
            ws.Section(name="samples", panels=pictures, is_open=True),
            ws.Section(name="training", panels=training, is_open=True),
            ws.Section(name="terms of the bound by t", panels=terms),
            ws.Section(name="evaluation", panels=bars),
            ws.Section(name="sweep", panels=[compared, wr.RunComparer(diff_only="split")]),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )


def account() -> str:
    """The user or team that W&B takes runs for.

    Raises:
        ValueError: no key is configured, or W&B cannot be reached.
    """
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        raise ValueError("W&B knows no key here: wandb login")
    try:
        return str(wandb.Api().default_entity)
    except Exception as error:  # its client's errors have no common base
        raise ValueError(f"W&B cannot be reached: {first_line(error)}") from error


def save(view: Any) -> str:
    """Save the view; its address.

    Raises:
        ValueError: W&B did not take it.
    """
    try:
        return str(view.save().url)
    except Exception as error:  # its client's errors have no common base
        raise ValueError(f"W&B has not taken the view: {first_line(error)}") from error
