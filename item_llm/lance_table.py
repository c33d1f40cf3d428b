"""One Lance table of vectors by key, with what Lance leaves to its user on a local disk.

Lance's merge keeps keys distinct only where the schema names the primary key, and it does not
fsync: a power cut can leave the newest manifest torn, which blocks every open. Here each commit is
synced before it is acknowledged, and a torn newest manifest, never acknowledged, is removed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from item_llm.folders import fsync_path

_log = logging.getLogger(__name__)
_VERSION_ENDS = 2**64 - 1  # Lance names version v's manifest 2**64 - 1 - v, so that newest is first
_PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
_FRAGMENTS = 64  # small files worth merging into one


class LanceTable:
    """Rows (key, float32 vector) in the folder `path`; calls that write need the caller's lock."""

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width
        self._synced: set[tuple[Path, int]] = set()
        self._dataset: Any = None

    @property
    def exists(self) -> bool:
        """Whether a first version was ever begun."""
        return any(self.path.glob("_versions/*.manifest"))

    def create(self, metadata: dict[str, str]) -> None:
        """Commit an empty first version with `metadata` on its schema."""
        import lance

        schema = self._schema().with_metadata(metadata)
        self._dataset = lance.write_dataset(schema.empty_table(), str(self.path), mode="create")
        self._sync()

    def open(self) -> None:
        """Open the newest version; a torn one is removed first (the caller holds the lock)."""
        import lance

        try:
            self._dataset = lance.dataset(str(self.path))
            self._dataset.count_rows()
        except (OSError, ValueError) as error:
            self._remove_newest_manifest(error)
            self._dataset = lance.dataset(str(self.path))

    def reopen(self) -> None:
        """See what others have committed since."""
        self._dataset.checkout_latest()

    def metadata(self) -> dict[str, str]:
        """The metadata that `create` was given."""
        raw = self._dataset.schema.metadata or {}
        return {k.decode(): v.decode() for k, v in raw.items()}

    @property
    def version(self) -> int:
        """The version that reads see."""
        return int(self._dataset.version)

    def keys(self) -> list[str]:
        """Every row's key, in no order that means anything."""
        return self._dataset.to_table(columns=["key"])["key"].to_pylist()

    def rows(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Blocks of keys and their float32 vectors [rows, width]."""
        for batch in self._dataset.to_batches(columns=["key", "vector"], batch_size=8192):
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            yield batch.column("key").to_pylist(), flat.reshape(-1, self.width)

    def insert(self, keys: Sequence[str], vectors: np.ndarray) -> None:
        """Commit rows whose keys are not there yet; durable when this returns.

        Raises:
            ValueError: the table then holds a key twice (it must be thrown away).
        """
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, self.width)
        table = pa.table([pa.array(keys, pa.string()), column], schema=self._schema())
        merge = self._dataset.merge_insert("key").when_not_matched_insert_all()
        merge.conflict_retries(10).execute(table)
        self._sync()
        self.reopen()
        self._check_distinct()

    def delete(self, keys: Sequence[str]) -> None:
        """Commit the removal of rows; durable when this returns."""
        for start in range(0, len(keys), 1000):
            quoted = ", ".join(f"'{key}'" for key in keys[start : start + 1000])
            self._dataset.delete(f"key IN ({quoted})")
        self._sync()
        self.reopen()

    def compact(self) -> None:
        """Merge many small files into few, once there are enough of them."""
        if len(self._dataset.get_fragments()) >= _FRAGMENTS:
            self._dataset.optimize.compact_files()
            self._sync()
            self.reopen()

    def _schema(self) -> Any:
        import pyarrow as pa

        key = pa.field("key", pa.string(), nullable=False, metadata=_PRIMARY_KEY)
        return pa.schema([key, pa.field("vector", pa.list_(pa.float32(), self.width))])

    def _check_distinct(self) -> None:
        keys = self.keys()
        if len(keys) != len(set(keys)):
            raise ValueError(
                f"{self.path}: {len(keys)} rows but {len(set(keys))} distinct keys after a commit; "
                "something wrote without the lock: delete the table and encode again"
            )

    def _sync(self) -> None:
        """Sync what this object has not synced yet: data first, manifests last, then folders."""
        folders = [self.path, *(p for p in self.path.rglob("*") if p.is_dir())]
        folders.sort(key=lambda p: p.name == "_versions")
        for folder in folders:
            for file in (p for p in folder.iterdir() if p.is_file()):
                mark = (file, file.stat().st_size)
                if mark not in self._synced:
                    fsync_path(file)
                    self._synced.add(mark)
            fsync_path(folder)

    def _remove_newest_manifest(self, error: Exception) -> None:
        manifests = list(self.path.glob("_versions/*.manifest"))
        newest = max(manifests, key=_manifest_version, default=None)
        if newest is None or len(manifests) < 2:
            raise ValueError(
                f"{self.path}: not readable and no earlier version to go back to ({error}); "
                "delete the table and encode again"
            ) from error
        _log.warning(
            "%s: version %d is torn (%s); removed, going on from the version before it",
            self.path,
            _manifest_version(newest),
            str(error).split("\n")[0][:200],
        )
        newest.unlink()
        fsync_path(newest.parent)


def _manifest_version(path: Path) -> int:
    """Version number in a manifest's name; both of Lance's naming schemes."""
    match = re.fullmatch(r"(\d+)\.manifest", path.name)
    if match is None:
        raise ValueError(f"{path}: no name of a Lance manifest; who put it there?")
    number = int(match.group(1))
    return _VERSION_ENDS - number if len(match.group(1)) == 20 else number
