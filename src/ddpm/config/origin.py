"""Signs configurations with a key that only this user can read, and recognises those that carry such a signature.

What this user once said on a command line (paths, consents) counts as said where the signature is valid. It is not in a
configuration that comes from elsewhere or was changed since; `ddpm.config.trust` says what such a one may still decide.
"""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

SIGNATURE = "signature"  # the key of a configuration that holds it


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its signature; without one where the user's key can be neither read nor made."""
    content = {key: value for key, value in content.items() if key != SIGNATURE}
    key = _key(make=True)
    return {**content, SIGNATURE: _signature(content, key)} if key else content


def is_own(content: dict[str, Any]) -> bool:
    """Whether the content is as this user has signed it."""
    stated, key = content.get(SIGNATURE), _key(make=False)
    if key is None or not isinstance(stated, str):
        return False
    rest = {name: value for name, value in content.items() if name != SIGNATURE}
    try:
        return hmac.compare_digest(_signature(rest, key).encode(), stated.encode())
    except (TypeError, ValueError, RecursionError):  # it holds what no configuration does
        return False


def _signature(content: dict[str, Any], key: bytes) -> str:
    return hmac.new(key, json.dumps(content, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    """The user's key, 32 bytes; None where there is none."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "ddpm"
    file = folder / "key"
    try:
        if not file.exists() and make:
            folder.mkdir(parents=True, exist_ok=True)
            fresh = folder / f".key.{os.getpid()}.{secrets.token_hex(4)}"
            with open(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
                out.write(secrets.token_bytes(32))
            try:
                os.link(fresh, file)  # of several processes at once, one makes the key
            except FileExistsError:
                pass
            except OSError:  # a file system without such links
                fresh.replace(file)
            finally:
                fresh.unlink(missing_ok=True)
        key = file.read_bytes()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return None
    return key if len(key) == 32 else None
