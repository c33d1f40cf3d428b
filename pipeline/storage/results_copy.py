"""A run's results in an object store: copies under the names that people look for."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from pipeline.storage.bucket import Bucket


def put_results(folder: Path, bucket: Bucket, *, last: str) -> None:
    """Upload the files of a folder but hidden ones.

    Args:
        folder: on this machine.
        bucket: where they go, each under its relative path.
        last: the file that goes last, as the sign that all are there.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    for path in sorted(files, key=lambda path: (path.name == last, path)):
        kind, _ = mimetypes.guess_type(path.name)
        bucket.upload(path.relative_to(folder).as_posix(), path, lambda _: None, kind)
