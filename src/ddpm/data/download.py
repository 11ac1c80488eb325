"""Files that are downloaded once, verified always, and may as well be put in place by hand."""

import contextlib
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import wrap_file

from ddpm.data.dataset import DataError

TIMEOUT_S = 30


@dataclass(frozen=True)
class Remote:
    """A file on the network and the SHA-256 of its contents."""

    url: str
    sha256: str

    def fetch(self, folder: Path) -> Path:
        """The verified file in `folder`, which may also be its own path, downloaded if it is not there.

        Raises DataError.
        """
        name = self.url.rsplit("/", 1)[-1]
        path = folder if folder.name == name else folder / name
        if folder.is_file() and path != folder:
            raise DataError(f"{folder} is a file: give data.path= the folder of {name}, or that file itself")
        if not path.exists():
            self._download(path)
            return path
        try:
            found = _sha256(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        if found != self.sha256:
            raise DataError(
                f"{path} is not the file that it should be (sha256 {found}, expected {self.sha256}): delete it, and it "
                f"will be downloaded again"
            )
        return path

    def _download(self, path: Path) -> None:
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self.url, timeout=TIMEOUT_S) as response, partial.open("wb") as file:
                size = int(response.headers.get("Content-Length", 0))
                with wrap_file(response, size, description=path.name, console=Console(stderr=True)) as stream:
                    shutil.copyfileobj(stream, file)
                file.flush()
                os.fsync(file.fileno())
            if (found := _sha256(partial)) != self.sha256:
                raise OSError(f"what came has sha256 {found}")
            partial.replace(path)
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            reason = getattr(error, "reason", None) or error
            raise DataError(
                f"cannot download {self.url} ({reason}): get it in another way and put it at {path.absolute()} "
                f"(sha256 {self.sha256})"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
