"""`hf://OWNER/NAME[@REVISION]`: models on the Hugging Face Hub, fetched into its cache, or pushed."""

import shlex
from pathlib import Path
from types import ModuleType

from ddpm.checkpoints.converters.diffusers import WEIGHTS
from ddpm.config.errors import first_line

SCHEME = "hf://"
INSTALL = "pip install 'huggingface_hub>=0.34'"


class HubError(ValueError):
    """The Hub did not do what it was asked for; one line."""


def fetch(address: str) -> Path:
    """The folder of an `hf://` address; of its files only the configuration and one file of weights are fetched.

    Raises:
        ValueError: no such address, or it cannot be reached.
        ImportError: huggingface_hub is not installed.
    """
    library = _library(address)
    name, revision = _parts(address)
    try:
        for weights in WEIGHTS:
            wanted = [f"{part}{file}" for part in ("", "unet/", "scheduler/") for file in ("*.json", weights)]
            folder = Path(library.snapshot_download(name, revision=revision or None, allow_patterns=wanted))
            if any(folder.rglob(weights)):
                break
    except Exception as error:  # the Hub's errors have no common base, and its HTTP library has changed before
        raise HubError(
            f"{address} cannot be fetched: {first_line(error)} (without a network, fetch the folder elsewhere and give "
            "its path)"
        ) from error
    return folder


def check_push(address: str) -> str:
    """Whose account it is that pushes, if one can; nothing is changed on the Hub.

    Raises:
        ValueError: no such address, the Hub cannot be reached, or knows no such user.
        ImportError: huggingface_hub is not installed.
    """
    library = _library(f"push={address}")
    name, revision = _parts(address)
    if revision:
        raise ValueError(f"push={address}: a push goes to the main branch, leave @{revision} away")
    try:
        library.utils.validate_repo_id(name)
        return str(library.HfApi().whoami()["name"])
    except Exception as error:
        raise HubError(
            f"push={address} is not possible: {first_line(error)} (it needs a network and a token that may write: "
            "`hf auth login`, or HF_TOKEN)"
        ) from error


def push(folder: Path, address: str, *, private: bool) -> str:
    """Make the files of a folder a commit on the Hub, of a new model if there is none; the address of its page.

    Args:
        private: of a new model, whether only its owner sees it.

    Raises:
        HubError: it did not take them.
    """
    api, (name, _) = _library(address).HfApi(), _parts(address)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="ddpm export")
    except Exception as error:
        raise HubError(f"{address} has not taken it: {first_line(error)}") from error
    return f"{api.endpoint}/{name}"


def by_hand(folder: Path, address: str) -> str:
    """The command that pushes the folder."""
    return f"hf upload {_parts(address)[0]} {shlex.quote(str(folder))}"


def _library(what: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise ImportError(f"{what} needs an extra dependency: {INSTALL}") from None
    module: ModuleType = huggingface_hub
    return module


def _parts(address: str) -> tuple[str, str]:
    name, _, revision = address.removeprefix(SCHEME).partition("@")
    if not address.startswith(SCHEME) or name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"{address} is not of the form {SCHEME}OWNER/NAME, as {SCHEME}google/ddpm-cifar10-32")
    return name, revision
