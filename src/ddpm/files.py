"""TODO"""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file that a reader sees as it was or as it is to be, never half; on the disk when this returns."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
