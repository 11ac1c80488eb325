"""What kind of setting each key of the configuration is: the one table from which everything else about keys follows.

From a key's role follow what resuming may change (`fixed_by_the_run`), what evaluate.py takes (`open_to_evaluation`),
which departures keep a number from being compared with a published one (`matters_to`), and what makes a line of a
report (`tells_configurations_apart`).
"""

from collections.abc import Collection
from enum import Flag, auto


class Role(Flag):
    """The kinds of settings; a key may be of several."""

    MODEL = auto()  # which function is learned
    DATA = auto()  # from which examples
    TRAINING = auto()  # by which steps
    LENGTH = auto()  # by how many of them
    SAMPLING = auto()  # how samples are drawn
    SAMPLE_METRICS = auto()  # how samples are measured
    BOUND = auto()  # how the bound is measured
    DRAWS = auto()  # which random numbers are drawn, not what is made of them
    HARDWARE = auto()  # on what it is computed, and where files lie
    RUN = auto()  # what happens beside the steps of a run
    BOOKKEEPING = auto()  # what is kept, shown and logged, and under which name
    PRESET = auto()  # a group whose options set other keys
    USER_ONLY = auto()  # where to read, write, log and compute, and consents: never taken from a stranger's file
    MEASURING = SAMPLE_METRICS | BOUND


# By dotted key; what stands below a key has its role unless it is listed itself.
ROLES = {
    "recipe": Role.PRESET,
    "experiment": Role.PRESET,
    "debug": Role.PRESET,
    "base": Role.PRESET,
    "budget": Role.PRESET,
    "size": Role.PRESET,
    "network": Role.MODEL,
    "network.checkpointing": Role.HARDWARE,
    "schedule": Role.MODEL,
    "prediction": Role.MODEL,
    "variance": Role.MODEL,
    "condition": Role.MODEL,
    "condition.drop": Role.TRAINING,
    "data": Role.DATA,
    "data.path": Role.HARDWARE | Role.USER_ONLY,
    "data.condition_path": Role.HARDWARE | Role.USER_ONLY,
    "data.root": Role.HARDWARE | Role.USER_ONLY,
    "data.array_gib": Role.HARDWARE | Role.USER_ONLY,
    "loader.batch_size": Role.TRAINING,
    "loader.num_workers": Role.HARDWARE | Role.USER_ONLY,
    "objective": Role.TRAINING,
    "weighting": Role.TRAINING,
    "timesteps": Role.TRAINING,
    "optimizer": Role.TRAINING,
    "ema": Role.TRAINING | Role.MEASURING,  # which averages are kept, and which is measured
    "ema.decay": Role.TRAINING,
    "ema.lengths": Role.TRAINING | Role.RUN,  # they change nothing else
    "ema.length": Role.MEASURING,
    "max_steps": Role.LENGTH,
    "init": Role.TRAINING | Role.USER_ONLY,
    "seed": Role.DRAWS,
    "trainer": Role.HARDWARE | Role.USER_ONLY,
    "trainer.precision": Role.HARDWARE | Role.TRAINING,
    "sampler": Role.SAMPLING,
    "sampler.times": Role.SAMPLING | Role.USER_ONLY,
    "guidance": Role.SAMPLING,
    "guidance.weak": Role.SAMPLING | Role.USER_ONLY,
    "features": Role.SAMPLE_METRICS,
    "features.weights": Role.SAMPLE_METRICS | Role.HARDWARE | Role.USER_ONLY,
    "features.trust": Role.SAMPLE_METRICS | Role.USER_ONLY,
    "metric": Role.PRESET,
    "evaluation": Role.MEASURING,
    "evaluation.metrics": Role.MEASURING | Role.BOOKKEEPING,
    "evaluation.num_samples": Role.SAMPLE_METRICS,
    "evaluation.fid_split": Role.SAMPLE_METRICS,
    "evaluation.split": Role.BOUND,
    "evaluation.bits_per_dim": Role.BOUND,
    "evaluation.bits_per_dim.decoder": Role.BOUND | Role.TRAINING,  # objective=vlb trains by it
    "evaluation.chunk": Role.MEASURING | Role.DRAWS,
    "evaluation.seed": Role.MEASURING | Role.DRAWS,
    "callbacks": Role.TRAINING | Role.USER_ONLY,
    "every": Role.RUN,
    "validation": Role.RUN,
    "best": Role.RUN,
    "stop": Role.LENGTH,
    "evaluate_after": Role.RUN,
    "resume": Role.RUN | Role.USER_ONLY,
    "optimized_metric": Role.RUN,
    "expected": Role.RUN,
    "name": Role.RUN,
    "out": Role.BOOKKEEPING | Role.USER_ONLY,
    "ckpt": Role.BOOKKEEPING | Role.USER_ONLY,
    "keep": Role.BOOKKEEPING | Role.USER_ONLY,
    "figures": Role.BOOKKEEPING | Role.USER_ONLY,
    "figure": Role.BOOKKEEPING | Role.USER_ONLY,
    "logger": Role.BOOKKEEPING | Role.USER_ONLY,
    "choices": Role.BOOKKEEPING,
    "converter": Role.BOOKKEEPING,
    "signature": Role.BOOKKEEPING,
    "not_followed": Role.BOOKKEEPING,
    "foreign": Role.BOOKKEEPING,
    "hydra": Role.BOOKKEEPING | Role.USER_ONLY,
}

INTERNAL = ("choices", "converter", "foreign", "hydra", "signature", "not_followed")  # no user sets these
MODEL = tuple(key for key, role in ROLES.items() if role == Role.MODEL)  # the sections that a checkpoint's weights need
PRESETS = tuple(key for key, role in ROLES.items() if role == Role.PRESET)


def role(key: str) -> Role:
    """The role of a dotted key or of a group; a key that nobody listed counts as part of the model and the training."""
    while key:
        if key in ROLES:
            return ROLES[key]
        key = key.rpartition(".")[0]
    return Role.MODEL | Role.TRAINING


def fixed_by_the_run(key: str) -> bool:
    """Whether another value would make another run: then it cannot change when a run is resumed."""
    return bool(role(key) & (Role.MODEL | Role.DATA | Role.TRAINING | Role.PRESET)) or role(key) == Role.DRAWS


def open_to_evaluation(key: str) -> bool:
    """Whether evaluate.py takes the key: how it samples, what it measures and where, never what was trained."""
    return bool(role(key) & (Role.SAMPLING | Role.MEASURING | Role.HARDWARE | Role.BOOKKEEPING))


def evaluation_keys() -> list[str]:
    """The keys that evaluate.py takes, as a message names them: the uppermost of each."""
    taken = [key for key in ROLES if open_to_evaluation(key) and key not in INTERNAL]
    return [key for key in taken if key.rpartition(".")[0] not in taken]


def is_user_only(key: str) -> bool:
    """Whether the key says where to read, write, log or compute, or consents: `ddpm.config.trust`."""
    return bool(role(key.replace("/", ".")) & Role.USER_ONLY)


def describes_the_model(key: str) -> bool:
    """Whether the key says which model it is and of what data, which another codebase's file may leave open."""
    return bool(role(key) & (Role.MODEL | Role.DATA)) or key == "recipe"


def matters_to(key: str, *, of_bound: bool, own: str, metrics: Collection[str]) -> bool:
    """Whether another value of the key can change what a metric means.

    Args:
        of_bound: the metric is one of the bound, not of samples.
        own: the section of the configuration, `evaluation.OWN`, that holds the metric's settings.
        metrics: all such sections; each matters to its own metric alone.
    """
    kind = role(key) & ~Role.USER_ONLY
    if kind & (Role.HARDWARE | Role.RUN | Role.BOOKKEEPING | Role.PRESET | Role.DRAWS):
        return False
    of_samples_alone = not kind & ~(Role.SAMPLING | Role.SAMPLE_METRICS)
    of_bound_alone = kind & Role.BOUND and not kind & Role.SAMPLE_METRICS
    if of_samples_alone if of_bound else of_bound_alone:
        return False
    section = key.split(".")[1] if key.startswith("evaluation.") else ""
    return section == own or section not in metrics


def tells_configurations_apart(key: str) -> bool:
    """Whether two runs that differ in this key are two lines of a report; those that differ in a seed are one."""
    return not role(key) & Role.DRAWS and bool(role(key) & ~(Role.RUN | Role.BOOKKEEPING | Role.USER_ONLY))
