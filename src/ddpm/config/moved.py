"""Where things were in earlier versions: the one table by which their checkpoints and run folders still load."""

from typing import Any

from ddpm.config.groups import content_of

# Classes that a saved configuration names in `_target_`, by the beginning of the name: before, and now.
TARGETS = {
    "ddpm.unet.": "ddpm.networks.unet.",
    "ddpm.mlp.": "ddpm.networks.mlp.",
    "ddpm.features.": "ddpm.metrics.features.",
    "ddpm.diffusion.sampler.DDIM": "ddpm.samplers.ddim.DDIM",
    "ddpm.diffusion.sampler.DPMSolver": "ddpm.samplers.dpm_solver.DPMSolver",
}

# Keys of a saved configuration: before, and now.
KEYS = {
    "data.batch_size": "loader.batch_size",
    "data.num_workers": "loader.num_workers",
    "data.split": "evaluation.split",
}

# Settings that classes of ours did not have in earlier versions, by their section and the beginning of their name.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("sampler", "ddpm."): {"times": None},
    ("schedule", "ddpm.diffusion.schedule.cosine"): {"snr_scale": 1.0},
    ("network", "ddpm.networks.unet."): {"checkpointing": False, "patch_size": 1},
}

# Groups that earlier versions did not have, and the option that stands for what they did.
GROUPS = {"condition": "none", "guidance": "none", "ema": "exponential"}


def translated(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration as this version would have written it; the argument is left alone.

    Raises:
        ValueError: it is nested deeper than any configuration.
    """
    try:
        now: dict[str, Any] = _retargeted(saved)
    except RecursionError:
        raise ValueError("the saved configuration is nested deeper than any of ours") from None
    for old, new in KEYS.items():
        (old_section, old_key), (section, key) = old.split("."), new.split(".")
        if isinstance(now.get(old_section), dict) and old_key in now[old_section]:
            value = now[old_section].pop(old_key)
            if isinstance(now.setdefault(section, {}), dict):
                now[section].setdefault(key, value)
    for (section, ours), settings in SETTINGS.items():
        if isinstance(there := now.get(section), dict) and str(there.get("_target_")).startswith(ours):
            now[section] = {**settings, **there}
    if isinstance(choices := now.get("choices"), dict):
        for group, option in GROUPS.items():
            if (group not in now or group not in choices) and isinstance(section := now.get(group, {}), dict):
                now[group] = {**content_of(group, option), **section}
                choices.setdefault(group, option)
    return now


def translated_overrides(said: list[str]) -> list[str]:
    """The words of an earlier command line, as they would be said now."""
    return [_renamed(text) for text in said]


def _renamed(override: str) -> str:
    key, equals, value = override.partition("=")
    return f"{KEYS.get(key, key)}{equals}{value}"


def _retargeted(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {
            key: _target(value) if key == "_target_" and isinstance(value, str) else _retargeted(value)
            for key, value in tree.items()
        }
    return [_retargeted(value) for value in tree] if isinstance(tree, list) else tree


def _target(name: str) -> str:
    return next((new + name.removeprefix(old) for old, new in TARGETS.items() if name.startswith(old)), name)
