"""Where things were in earlier versions: the one table by which their checkpoints and run folders still load."""

from typing import Any

# Classes that a saved configuration names in `_target_`, by the beginning of the name: before, and now.
TARGETS = {
    "ddpm.unet.": "ddpm.networks.unet.",
    "ddpm.mlp.": "ddpm.networks.mlp.",
    "ddpm.features.": "ddpm.metrics.features.",
}


def translated(saved: Any) -> Any:
    """A saved configuration, or a part of it, as this version would have written it; the argument is left alone."""
    if isinstance(saved, dict):
        return {
            key: _target(value) if key == "_target_" and isinstance(value, str) else translated(value)
            for key, value in saved.items()
        }
    return [translated(value) for value in saved] if isinstance(saved, list) else saved


def _target(name: str) -> str:
    now = next((new + name.removeprefix(old) for old, new in TARGETS.items() if name.startswith(old)), name)
    return now
