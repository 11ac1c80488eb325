"""Pictures that a network is told beside those that it makes: each has its partner's name, in another folder."""

from pathlib import Path, PurePosixPath

from ddpm.data.dataset import DataError
from ddpm.data.encoded import Files, Source, one_line


def partners(source: Source, folder: Path, names: list[str]) -> Files:
    """Find for each picture of a source its partner: the picture of the same path in another folder, of any ending.

    Args:
        names: the pictures in `folder`, by their paths in it.

    Raises:
        DataError: the source is no folder of files, or one of them has no partner, or several.
    """
    if not isinstance(source, Files):
        raise DataError("data.condition_path pairs files by their names: data.path must be a folder or an archive")
    by_stem: dict[PurePosixPath, list[str]] = {}
    for name in names:
        by_stem.setdefault(PurePosixPath(name).with_suffix(""), []).append(name)
    found = []
    for name in source.names:
        candidates = by_stem.get(PurePosixPath(name).with_suffix(""), [])
        if len(candidates) != 1:
            how = "no partner" if not candidates else f"several partners ({', '.join(map(one_line, candidates))})"
            raise DataError(
                f"{one_line(name)} has {how} in {folder}: data.condition_path needs one picture of the same name"
            )
        found += candidates
    return Files(folder, found)
