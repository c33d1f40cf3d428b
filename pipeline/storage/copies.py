"""A folder's files as objects, each named by its content; a list of them stands for the folder.

    AREA/RELATIVE.SHA16    one file's bytes

An object's name holds the hash of its bytes. So it never changes, two writers of one output do not
overwrite each other's files, and what was uploaded before a kill is not uploaded again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.artifacts import DamagedArtifactError, check_file
from pipeline.storage.bucket import Bucket
from pipeline.whole_files import is_inside

_AT_ONCE = 8
_MB = 1e6
_LARGE = 16 * _MB  # a transfer that is told: a smaller one is over before it is read

# relative path -> {"bytes": ..., "sha256": ...}, as manifests have them
Files = Mapping[str, Mapping[str, Any]]
# done, total, unit, remark: as `StageProgress.update`
Tell = Callable[[float, float, str, str], None]


def silent(done: float, total: float, unit: str, info: str) -> None:
    """Tell nobody."""


def object_keys(area: str, files: Files) -> dict[str, str]:
    """The key of each file's object below `area`.

    Raises:
        DamagedArtifactError: a path that leads out of the folder.
    """
    return {name: _object_key(area, name, facts["sha256"]) for name, facts in files.items()}


def _object_key(area: str, relative: str, sha256: str) -> str:
    if not is_inside(relative):
        raise DamagedArtifactError(f"{area}: the path {relative!r} is not one within a folder")
    return f"{area}/{relative}.{sha256[:16]}"


def put_files(bucket: Bucket, area: str, folder: Path, files: Files, tell: Tell) -> None:
    """Upload the files that the store lacks."""
    keys, there = object_keys(area, files), bucket.sizes(f"{area}/")
    lacking = {n: f for n, f in files.items() if there.get(keys[n]) != f["bytes"]}
    moved = _Moved(lacking, "uploading", tell)
    _each(lacking, lambda name: bucket.upload(keys[name], folder / name, moved))


def get_files(bucket: Bucket, area: str, folder: Path, files: Files, tell: Tell) -> None:
    """Download files and compare them with their checksums; those that are right already stay.

    Raises:
        DamagedArtifactError: an object is absent or differs; the message names it.
    """
    keys = object_keys(area, files)
    lacking = {name: facts for name, facts in files.items() if not _is_right(folder / name, facts)}
    moved = _Moved(lacking, "downloading", tell)

    def get(name: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        if not bucket.download(keys[name], aside, moved):
            raise DamagedArtifactError(f"{bucket.address}/{keys[name]} is absent")
        try:
            check_file(aside, files[name])
        except ValueError as error:
            aside.unlink()
            raise DamagedArtifactError(f"{bucket.address}/{keys[name]}: {error}") from error
        os.replace(aside, path)

    _each(lacking, get)


def check_objects(bucket: Bucket, area: str, files: Files) -> None:
    """See that each file's object is there and has its size; one request for a thousand of them.

    Raises:
        DamagedArtifactError: one is absent or has another size.
    """
    there = bucket.sizes(f"{area}/")
    for name, key in object_keys(area, files).items():
        got, expected = there.get(key), files[name]["bytes"]
        if got != expected:
            found = "is absent" if got is None else f"has {got} bytes, expected {expected}"
            raise DamagedArtifactError(f"{bucket.address}/{key} {found}")


def drop_others(bucket: Bucket, area: str, files: Files) -> None:
    """Remove the objects below `area` that are no files of this list."""
    kept = set(object_keys(area, files).values())
    bucket.delete(key for key in bucket.sizes(f"{area}/") if key not in kept)


def keep_only(folder: Path, files: Files) -> None:
    """Remove what of a local folder is not in the list, and folders left empty."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)


def _is_right(path: Path, facts: Mapping[str, Any]) -> bool:
    try:
        check_file(path, facts)
    except (ValueError, OSError):
        return False
    return True


def _each(names: Files, work: Callable[[str], None]) -> None:
    """Some at a time, each from its first byte to its last; the first failure is raised."""
    if not names:
        return
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(names))) as pool:
        for _ in pool.map(work, names):
            pass


class _Moved:
    """Counts the bytes of all files of a transfer, and tells of them where they are many."""

    def __init__(self, files: Files, what: str, tell: Tell) -> None:
        self._total = sum(facts["bytes"] for facts in files.values())
        self._done, self._what, self._tell = 0, what, tell

    def __call__(self, moved: int) -> None:
        self._done += moved
        if self._total >= _LARGE:
            self._tell(self._done / _MB, self._total / _MB, "MB", self._what)
