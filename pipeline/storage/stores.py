"""Opening the run store that a config names: a folder, or an address with its mirror here."""

from __future__ import annotations

from pipeline.artifacts import RunStore
from pipeline.paths import project_root, resolve
from pipeline.storage.bucket import is_remote
from pipeline.storage.mirror import mirror_of
from pipeline.storage.object_runs import ObjectRunStore


def open_store(place: str) -> RunStore:
    """The run store at a place; nothing is made or looked at.

    Args:
        place: a folder (a relative one is the project's), or s3://BUCKET/PREFIX.

    Raises:
        ValueError: an address of another kind.
    """
    if not is_remote(place):
        return RunStore(resolve(place, project_root()))
    return ObjectRunStore(place, mirror_of(place))
