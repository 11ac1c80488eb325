"""`hf://OWNER/NAME[@REVISION]`: a diffusers folder from the Hugging Face Hub, kept in its cache."""

from pathlib import Path

from ddpm.checkpoints.converters.diffusers import WEIGHTS

SCHEME = "hf://"
INSTALL = "pip install 'huggingface_hub>=0.34'"


def fetch(address: str) -> Path:
    """The folder of an `hf://` address; of its files only the configuration and one file of weights are fetched.

    Raises:
        ValueError: no such address, or it cannot be reached.
        ImportError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(f"{address} needs an extra dependency: {INSTALL}") from None
    name, _, revision = address.removeprefix(SCHEME).partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"{address} is not of the form {SCHEME}OWNER/NAME, as {SCHEME}google/ddpm-cifar10-32")
    try:
        for weights in WEIGHTS:
            wanted = [f"{part}{file}" for part in ("", "unet/", "scheduler/") for file in ("*.json", weights)]
            folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
            if any(folder.rglob(weights)):
                break
    except Exception as error:  # the Hub's errors have no common base, and its HTTP library has changed before
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{address} cannot be fetched: {reason} (without a network, fetch the folder elsewhere and give its path)"
        ) from error
    return folder
