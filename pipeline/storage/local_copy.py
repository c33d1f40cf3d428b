"""What others put into an object store, and the copy of it that this machine reads.

    MIRROR/NAME...        the objects whose keys begin with the address, under the rest of them
    MIRROR/.listing.json  the tag that each had when it was fetched

An object is fetched where its tag or its size is another than before.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from pipeline.paths import resolve
from pipeline.storage.bucket import Bucket, is_remote
from pipeline.storage.mirror import mirror_of
from pipeline.whole_files import read_json, write_json

_LISTING = ".listing.json"


def on_this_machine(place: str, against: Path) -> Path:
    """Where a file or folder is on this machine, there or not: of an address, its copy.

    Args:
        place: a path, or s3://BUCKET/FOLDER/NAME.
        against: the folder that a relative path starts from.

    Raises:
        StorageError: the store cannot be used.
    """
    return local_copy(place) if is_remote(place) else resolve(place, against)


def local_copy(address: str) -> Path:
    """Bring this machine's copy of an object, or of all objects of a folder, up to date.

    Args:
        address: s3://BUCKET/FOLDER/NAME, of one object or of the folder that some are in.

    Returns:
        Where the file or the folder is; where nothing is at the address, nothing is there.

    Raises:
        ValueError: the address names no object, or a key leads out of the folder.
        StorageError: the store cannot be used.
    """
    parent, _, name = address.rstrip("/").rpartition("/")
    if not name or parent.endswith(":/"):
        raise ValueError(f"{address}: expected an object or a folder, s3://BUCKET/FOLDER/NAME")
    bucket, mirror = Bucket(parent), mirror_of(address)
    listed = {
        key: found
        for key, found in bucket.listed(name).items()
        if key == name or key.startswith(f"{name}/")
    }
    for key in listed:
        _check_inside(address, key)
    before = _read_listing(mirror)
    for key, found in listed.items():
        if before.get(key) != found.tag or not _has_size(mirror / key, found.size):
            _fetch(bucket, key, mirror / key)
    for path in [path for path in (mirror / name).rglob("*") if path.is_file()]:
        if path.relative_to(mirror).as_posix() not in listed:
            path.unlink()
    if mirror.exists():
        write_json(mirror / _LISTING, {key: found.tag for key, found in listed.items()})
    return mirror / name


def _check_inside(address: str, key: str) -> None:
    path = PurePosixPath(key)
    if ".." in path.parts or str(path) != key:
        raise ValueError(
            f"{address}: the key {key!r} is no path within a folder; rename the object"
        )


def _read_listing(mirror: Path) -> dict[str, str]:
    path = mirror / _LISTING
    listing: dict[str, str] = read_json(path) if path.is_file() else {}
    return listing


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _fetch(bucket: Bucket, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if not bucket.download(key, aside, lambda _: None):
        raise ValueError(f"{bucket.address}/{key} was removed while it was fetched; try again")
    os.replace(aside, path)
