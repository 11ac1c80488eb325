"""Types and ranges of settings, checked before anything that would use them is imported."""

import importlib.util
import math
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ddpm.config.grammar import shown
from ddpm.config.groups import options_of

# What must be a whole number of at least so much; a missing key is another recipe's business.
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
    metrics = [key for name in options_of("metric") if _exists(config, key := f"evaluation.{name}")]
    for key in (*SECTIONS, *metrics):
        if not isinstance(value := OmegaConf.select(config, key), DictConfig):
            return f"{key}={shown(value)} must be settings of its own, as {key}.NAME=VALUE"
    for key, least in AT_LEAST.items():
        value = OmegaConf.select(config, key)
        if value is None and (key in OPTIONAL or (key.startswith("network.") and not _exists(config, key))):
            continue
        if not _whole(value, least):
            return f"{key}={shown(value)} must be a whole number of at least {least}"
        if value > AT_MOST.get(key, value):
            return f"{key}={value} must be at most {AT_MOST[key]}"
    if isinstance(devices := config.trainer.devices, int) and devices > MOST_DEVICES:
        return f"trainer.devices={devices} must be at most {MOST_DEVICES}"
    if problem := _wrong_network(config.network):
        return problem
    for key in POSITIVE:
        value = OmegaConf.select(config, key)
        if value is None and key in OPTIONAL:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            return f"{key}={shown(value)} must be a positive number" + (", or null for none" if key in OPTIONAL else "")
    decay = OmegaConf.select(config, "ema.decay")
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
        return f"ema.decay={shown(decay)} must be a number in [0, 1)"
    if problem := _wrong_average(config.ema):
        return problem
    for key in ("name", *(["data.name"] if "name" in config.data else [])):
        name = OmegaConf.select(config, key)
        if not isinstance(name, str) or not name.isprintable() or not name.strip() or ".." in name.split("/"):
            return f"{key}={name!r} must be a text that can name a folder"
        if name.startswith("/"):
            return f"{key}={name!r} must not begin with /"
        if key == "name" and name.split("/")[0] in RESERVED:
            return f"{key}={name!r} is a folder that runs/ has already: choose another name"
    if not isinstance(metrics := config.evaluation.get("metrics"), ListConfig):
        return f"evaluation.metrics={shown(metrics)} must be a list, as evaluation.metrics=[fid,bits_per_dim]"
    delta = config.stop.min_delta
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 <= delta < math.inf:
        return f"stop.min_delta={shown(delta)} must be a number of at least 0"
    if (metrics_every := config.every.metrics) and metrics_every % config.every.validation:
        return (
            f"every.metrics={metrics_every} must be a multiple of every.validation={config.every.validation}: "
            "validations measure them"
        )
    for key in ("evaluation.fid_split", "evaluation.split"):
        if (split := OmegaConf.select(config, key)) not in ("train", "test", "both"):
            return f"{key}={shown(split)} must be train, test or both"
    if not isinstance(after := config.get("evaluate_after", False), bool):
        return f"evaluate_after={shown(after)} must be true or false"
    for key in ("trainer.channels_last", "trainer.resident"):
        if not isinstance(value := OmegaConf.select(config, key), bool) and value != "auto":
            return f"{key}={shown(value)} must be true, false or auto"
    if (mode := config.trainer.compile) not in (None, "default", "reduce-overhead", "max-autotune"):
        return f"trainer.compile={shown(mode)} must be default, reduce-overhead or max-autotune; or null, for none"
    if (keep := OmegaConf.select(config, "keep")) not in (None, "images", "npz"):
        return f"keep={shown(keep)} must be images or npz"
    metrics = OmegaConf.select(config, "evaluation.metrics") or []
    if keep and all(str(metric) in ("bits_per_dim", "bound_nats") for metric in metrics):
        return f"keep={keep} keeps samples, and evaluation.metrics=[{','.join(map(str, metrics))}] draws none: add fid"
    if "tensorboard" in (config.get("logger") or {}) and importlib.util.find_spec("tensorboard") is None:
        return "logger=tensorboard needs the package tensorboard: pip install '.[tensorboard]'"
    artifact = OmegaConf.select(config, "logger.wandb.checkpoint")
    if artifact not in (None, True, False):
        return f"logger.wandb.checkpoint={shown(artifact)} must be true or false"
    steps, T = OmegaConf.select(config, "sampler.steps"), config.schedule.T
    if steps is not None and steps > T:
        return f"sampler.steps={steps} exceeds schedule.T={T}: use at most {T}, or null for all"
    interval = OmegaConf.select(config, "guidance.interval")
    if isinstance(interval, ListConfig) and any(isinstance(t, int) and t > T for t in interval):
        return f"guidance.interval={list(interval)} goes beyond schedule.T={T}: it is [LOW, HIGH], two t of 1..{T}"
    return _wrong_figure(config) if "figures" in config else None


def _wrong_average(ema: DictConfig) -> str | None:
    """A length of a power-function average outside its range."""
    if not isinstance(lengths := ema.get("lengths"), ListConfig):
        return f"ema.lengths={shown(lengths)} must be a list of numbers"
    measured = [] if ema.get("length") is None else [ema.length]
    for said, values in ((f"ema.lengths={lengths}", lengths), (f"ema={ema.get('length')}", measured)):
        if not all(type(length) in (int, float) and SHORTEST <= length <= LONGEST for length in values):
            return f"{said}: the length (sigma_rel) of an average must be a number from {SHORTEST} to {LONGEST}"
    return f"ema.lengths={lengths} names a length twice" if len({*lengths}) < len(lengths) else None


def _wrong_network(network: DictConfig) -> str | None:
    """A setting of a network outside its range, where the network has such settings."""
    if "channel_mult" in network:
        mult = network.channel_mult
        if not (isinstance(mult, ListConfig) and 0 < len(mult) <= MOST_LEVELS and all(_whole(m, 1) for m in mult)):
            return (
                f"network.channel_mult={shown(mult)} must be a list of 1 to {MOST_LEVELS} whole numbers of at least 1"
            )
    if "attention_resolutions" in network:
        sizes = network.attention_resolutions
        if not (isinstance(sizes, ListConfig) and all(_whole(size, 0) for size in sizes)):
            return f"network.attention_resolutions={shown(sizes)} must be a list of whole numbers"
    dropout = network.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        return f"network.dropout={shown(dropout)} must be a number in [0, 1)"
    return None


def _wrong_figure(config: DictConfig) -> str | None:
    """A figure that there is not, or a setting of a figure outside its range."""
    asked, settings = config.figures, config.figure
    if not isinstance(settings, DictConfig):
        return "figure must be the figures' settings, figure.NAME.KEY=VALUE"
    known = [str(name) for name, section in settings.items() if isinstance(section, DictConfig)]
    if asked is not None:
        if asked == []:
            return f"figures=[] names none: choose from {', '.join(known)}, or leave it out for evaluation.metrics"
        if not isinstance(asked, ListConfig):
            one = asked if asked in known else known[0]
            return f"figures={asked} must be a list, figures=[{one}]: choose from {', '.join(known)}"
        if unknown := [str(name) for name in asked if name not in known]:
            return f"figures: {', '.join(unknown)} unknown; known are {', '.join(known)}"
    for name in map(str, settings):
        section = {f"{name}.{key}": value for key, value in settings[name].items()} if name in known else {}
        for key, value in (section or {name: settings[name]}).items():
            if problem := _wrong_setting(key.rpartition(".")[2], value, config.schedule.T):
                return f"figure.{key}={shown(value)} {problem}"
    return None


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
    if key == "scales" and not (listed and all(type(w) in (int, float) and math.isfinite(w) for w in listed)):
        return "must be a list of numbers"
    if key == "sort" and not isinstance(value, bool):
        return "must be true or false"
    return None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _exists(config: DictConfig, key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    return isinstance(section, DictConfig) and leaf in section
