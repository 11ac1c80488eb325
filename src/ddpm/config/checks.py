"""Types and ranges of settings, checked before anything that would use them is imported."""

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ddpm.config.grammar import shown
from ddpm.config.groups import options_of

# What must be a whole number of at least so much. A key that a configuration does not have is not judged.
AT_LEAST = {
    "seed": 0,
    "max_steps": 1,
    "loader.batch_size": 1,
    "loader.num_workers": 0,
    "schedule.T": 2,
    "sampler.steps": 1,
    "trainer.accumulate": 1,
    "trainer.num_nodes": 1,
    "network.channels": 1,
    "network.num_res_blocks": 1,
    "network.groups": 1,
    "network.patch_size": 1,
    "condition.classes": 1,
    "condition.factor": 2,
    "optimizer.warmup": 0,
    "every.log": 1,
    "every.validation": 1,
    "every.samples": 1,
    "every.checkpoint": 1,
    "every.metrics": 1,
    "validation.num_samples": 2,
    "stop.patience": 1,
    "evaluation.num_samples": 2,
    "evaluation.bits_per_dim.images": 2,
    "evaluation.bits_per_dim.evaluations": 6,
    "evaluation.chunk": 1,
    "evaluation.seed": 0,
}
# And of at most so much, which is more than anybody needs and less than brings a machine down.
AT_MOST = {
    "schedule.T": 1_000_000,
    "trainer.num_nodes": 65_536,
    "network.channels": 65_536,
    "network.num_res_blocks": 100,
    "condition.classes": 1_000_000,
}
MOST_DEVICES, MOST_LEVELS = 65_536, 12
# What holds settings of its own.
SECTIONS = ("data", "condition", "network", "schedule", "sampler", "guidance", "loader", "optimizer", "ema", "every",
            "validation", "best", "stop", "trainer", "evaluation", "evaluation.bits_per_dim")  # fmt: skip
OPTIONAL = (
    "sampler.steps",
    "condition.classes",
    "condition.factor",
    "evaluation.bits_per_dim.images",
    "evaluation.bits_per_dim.evaluations",
    "optimizer.muon_lr",
    "every.metrics",
    "stop.patience",
)

# Where in a configuration an option's settings are, for groups of which several options can be chosen.
PACKAGES = {
    "metric": "evaluation.NAME",
    "figure": "figure.NAME",
    "callbacks": "callbacks.NAME",
    "logger": "logger.NAME",
}

# The same for the settings of a figure, by their names.
FIGURE_AT_LEAST = {
    "seed": 0,
    "points": 1,
    "count": 1,
    "neighbours": 1,
    "lambdas": 2,
    "frames": 2,
    "samples": 1,
    "resamplings": 1,
}
SPACES = ("pixels", "features")
RESERVED = ("latest", "sweeps", "evaluations", "figures", "inspections", "reports", "statistics")  # under runs/

SHORTEST, LONGEST = 0.005, 0.288  # average of weights; the mean over all steps has 12^-1/2

POSITIVE = ("optimizer.lr", "optimizer.grad_clip", "optimizer.muon_lr")


def wrong_value(config: DictConfig) -> str | None:
    """Which setting has a value outside its range, and the range; None if none has."""
    return next(_wrong_values(config), None)


def _wrong_values(config: DictConfig) -> Iterator[str]:
    """What is wrong, in an order in which each check may rely on those before it."""
    yield from _sections(config)
    yield from _whole_numbers(config)
    yield from _network(config.network)
    yield from _numbers(config)
    yield from _averages(config.ema)
    yield from _names(config)
    yield from _measurements(config)
    yield from _trainer(config)
    yield from _output(config)
    yield from _times(config)
    if "figures" in config:
        yield from _figures(config)


def _sections(config: DictConfig) -> Iterator[str]:
    metrics = [key for name in options_of("metric") if _exists(config, key := f"evaluation.{name}")]
    for key in (*SECTIONS, *metrics):
        if not isinstance(value := OmegaConf.select(config, key), DictConfig):
            yield f"{key}={shown(value)} must be settings of its own, as {key}.NAME=VALUE"

    for group, section in PACKAGES.items():
        where = section.removesuffix(".NAME")
        if "_target_" in (config.get(group) or {}) or "_target_" in (OmegaConf.select(config, where) or {}):
            yield f"the file of an option of {group}/ must begin with # @package {section}: a run may have several"


def _whole_numbers(config: DictConfig) -> Iterator[str]:
    for key, least in AT_LEAST.items():
        value = OmegaConf.select(config, key)
        if value is None and (key in OPTIONAL or (key.startswith("network.") and not _exists(config, key))):
            continue
        if not _whole(value, least):
            yield f"{key}={shown(value)} must be a whole number of at least {least}"
        elif value > AT_MOST.get(key, value):
            yield f"{key}={value} must be at most {AT_MOST[key]}"
    if isinstance(devices := config.trainer.devices, int) and devices > MOST_DEVICES:
        yield f"trainer.devices={devices} must be at most {MOST_DEVICES}"


def _network(network: DictConfig) -> Iterator[str]:
    """Settings of a network, where the network has such settings."""
    if "channel_mult" in network:
        mult = network.channel_mult
        if not (isinstance(mult, ListConfig) and 0 < len(mult) <= MOST_LEVELS and all(_whole(m, 1) for m in mult)):
            yield f"network.channel_mult={shown(mult)} must be a list of 1 to {MOST_LEVELS} whole numbers of at least 1"
    if "attention_resolutions" in network:
        sizes = network.attention_resolutions
        if not (isinstance(sizes, ListConfig) and all(_whole(size, 0) for size in sizes)):
            yield f"network.attention_resolutions={shown(sizes)} must be a list of whole numbers"
    dropout = network.get("dropout", 0.0)
    if not (_number(dropout) and 0 <= dropout < 1):
        yield f"network.dropout={shown(dropout)} must be a number in [0, 1)"


def _numbers(config: DictConfig) -> Iterator[str]:
    for key in POSITIVE:
        value = OmegaConf.select(config, key)
        if value is None and key in OPTIONAL:
            continue
        if not (_number(value) and 0 < value < math.inf):
            yield f"{key}={shown(value)} must be a positive number" + (", or null for none" if key in OPTIONAL else "")
    if not (_number(delta := config.stop.min_delta) and 0 <= delta < math.inf):
        yield f"stop.min_delta={shown(delta)} must be a number of at least 0"


def _averages(ema: DictConfig) -> Iterator[str]:
    if not (_number(decay := ema.get("decay")) and 0 <= decay < 1):
        yield f"ema.decay={shown(decay)} must be a number in [0, 1)"
    if not isinstance(lengths := ema.get("lengths"), ListConfig):
        yield f"ema.lengths={shown(lengths)} must be a list of numbers"
    measured = [] if ema.get("length") is None else [ema.length]
    for said, values in ((f"ema.lengths={lengths}", lengths), (f"ema={ema.get('length')}", measured)):
        if not all(_number(length) and SHORTEST <= length <= LONGEST for length in values):
            yield f"{said}: the length (sigma_rel) of an average must be a number from {SHORTEST} to {LONGEST}"
    if len({*lengths}) < len(lengths):
        yield f"ema.lengths={lengths} names a length twice"


def _names(config: DictConfig) -> Iterator[str]:
    for key in ("name", *(["data.name"] if "name" in config.data else [])):
        name = OmegaConf.select(config, key)
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or {"..", "."} & {*name.split("/")}:
            yield f"{key}={name!r} must be a text that can name a folder"
        elif name.startswith("/"):
            yield f"{key}={name!r} must not begin with /"
        elif key == "name" and name.split("/")[0].casefold() in RESERVED:  # some file systems know no capitals
            yield f"{key}={name!r} is a folder that runs/ has already: choose another name"


def _measurements(config: DictConfig) -> Iterator[str]:
    if not isinstance(metrics := config.evaluation.get("metrics"), ListConfig):
        yield f"evaluation.metrics={shown(metrics)} must be a list, as evaluation.metrics=[fid,bits_per_dim]"
    if not isinstance(few := config.validation.get("metrics"), ListConfig):
        yield f"validation.metrics={shown(few)} must be a list, as validation.metrics=[fid]"
    if (metrics_every := config.every.metrics) and metrics_every % config.every.validation:
        yield (
            f"every.metrics={metrics_every} must be a multiple of every.validation={config.every.validation}: "
            "validations measure them"
        )
    for key in ("evaluation.fid_split", "evaluation.split"):
        if (split := OmegaConf.select(config, key)) not in ("train", "test", "both"):
            yield f"{key}={shown(split)} must be train, test or both"
    if not isinstance(after := config.get("evaluate_after", False), bool):
        yield f"evaluate_after={shown(after)} must be true or false"


def _trainer(config: DictConfig) -> Iterator[str]:
    for key in ("trainer.channels_last", "trainer.resident"):
        if not isinstance(value := OmegaConf.select(config, key), bool) and value != "auto":
            yield f"{key}={shown(value)} must be true, false or auto"
    if (mode := config.trainer.compile) not in (None, "default", "reduce-overhead", "max-autotune"):
        yield f"trainer.compile={shown(mode)} must be default, reduce-overhead or max-autotune; or null, for none"


def _output(config: DictConfig) -> Iterator[str]:
    """What is kept of samples, and where runs are logged."""
    if (keep := OmegaConf.select(config, "keep")) not in (None, "images", "npz"):
        yield f"keep={shown(keep)} must be images or npz"
    metrics = config.evaluation.metrics
    if keep and all(str(metric) in ("bits_per_dim", "bound_nats") for metric in metrics):
        yield f"keep={keep} keeps samples, and evaluation.metrics=[{','.join(map(str, metrics))}] draws none: add fid"
    if "tensorboard" in (config.get("logger") or {}) and importlib.util.find_spec("tensorboard") is None:
        yield "logger=tensorboard needs the package tensorboard: pip install '.[tensorboard]'"
    if (artifact := OmegaConf.select(config, "logger.wandb.checkpoint")) not in (None, True, False):
        yield f"logger.wandb.checkpoint={shown(artifact)} must be true or false"


def _times(config: DictConfig) -> Iterator[str]:
    """What must not go beyond T."""
    steps, T = OmegaConf.select(config, "sampler.steps"), config.schedule.T
    if steps is not None and steps > T:
        yield f"sampler.steps={steps} exceeds schedule.T={T}: use at most {T}, or null for all"
    interval = OmegaConf.select(config, "guidance.interval")
    if isinstance(interval, ListConfig) and any(isinstance(t, int) and t > T for t in interval):
        yield f"guidance.interval={list(interval)} goes beyond schedule.T={T}: it is [LOW, HIGH], two t of 1..{T}"


def _figures(config: DictConfig) -> Iterator[str]:
    """A figure that there is not, and settings of figures."""
    asked, settings = config.figures, config.figure
    if not isinstance(settings, DictConfig):
        yield "figure must be the figures' settings, figure.NAME.KEY=VALUE"
    known = [str(name) for name, section in settings.items() if isinstance(section, DictConfig)]
    if asked == []:
        yield f"figures=[] names none: choose from {', '.join(known)}, or leave it out for evaluation.metrics"
    elif asked is not None and not isinstance(asked, ListConfig):
        one = asked if asked in known else known[0]
        yield f"figures={asked} must be a list, figures=[{one}]: choose from {', '.join(known)}"
    elif unknown := [str(name) for name in asked or () if name not in known]:
        yield f"figures: {', '.join(unknown)} unknown; known are {', '.join(known)}"
    for name in map(str, settings):
        section = {f"{name}.{key}": value for key, value in settings[name].items()} if name in known else {}
        for key, value in (section or {name: settings[name]}).items():
            if problem := _wrong_setting(key.rpartition(".")[2], value, config.schedule.T):
                yield f"figure.{key}={shown(value)} {problem}"


def _wrong_setting(key: str, value: Any, T: int) -> str | None:
    if key in FIGURE_AT_LEAST:
        least = FIGURE_AT_LEAST[key]
        return None if _whole(value, least) else f"must be a whole number of at least {least}"
    listed = list(value) if isinstance(value, ListConfig) and value else None
    if key == "t" and value is not None and not (listed and all(_whole(t, 1) and t <= T for t in listed)):
        return f"must be a list of whole numbers in 1..T, and T={T}"
    if key == "images" and not (listed and all(_whole(i, 0) or isinstance(i, str) for i in listed)):
        return "must be images, each the index of one in evaluation.split or a file"
    if key == "spaces" and not (listed and set(listed) <= set(SPACES)):
        return f"must be a list from {', '.join(SPACES)}"
    classes = listed is not None and all(_whole(k, 0) for k in listed)
    if key == "label" and not (value in (None, "all") or _whole(value, 0) or classes):
        return "must be a class, a list of classes, all, or null for the data's own"
    if key == "labels" and value is not None and not classes:
        return "must be a list of classes, or null for all"
    if key == "scales" and not (listed and all(_number(w) and math.isfinite(w) for w in listed)):
        return "must be a list of numbers"
    if key == "sort" and not isinstance(value, bool):
        return "must be true or false"
    return None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exists(config: DictConfig, key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    return isinstance(section, DictConfig) and leaf in section
