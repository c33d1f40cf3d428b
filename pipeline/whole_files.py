"""Files that are whole or not there: written aside, flushed, renamed; and their checksums."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

_ASIDE = ".tmp"
_BLOCK = 1 << 22


def content_hash(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: sorted keys, no spaces, no NaN."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of one file's bytes, read in blocks of 4 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_inside(relative: str) -> bool:
    """Whether a name of a manifest is a plain path that stays within the manifest's folder.

    >>> [is_inside(name) for name in ("sub/items.txt", "../items.txt", "/etc/hostname", "./items")]
    [True, False, False, False]
    """
    path = PurePosixPath(relative)
    return not path.is_absolute() and ".." not in path.parts and str(path) == relative


def write_json(path: Path, value: object) -> None:
    """Write JSON so that `path` holds the old text or the new one, never half of it."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text aside, flush it to the disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}{_ASIDE}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except OSError:  # the disk is full: what was written of it would only take up room
        aside.unlink(missing_ok=True)
        raise


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left aside; the caller holds the folder's lock."""
    for left in folder.glob(f".*{_ASIDE}"):
        left.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        ValueError: the file is absent or damaged; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is absent; run the job again to make it") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits
        raise ValueError(f"{path} is damaged ({error}); remove it and run the job again") from error


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
