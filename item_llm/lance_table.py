"""One Lance table with a primary key, on a local disk or in an object store (s3://).

Lance's merge keeps keys distinct only where the schema names the primary key. Each commit is
checked (as many rows as distinct keys) and, on a local disk, synced before it is acknowledged; a
torn newest version, never acknowledged, is set aside on open. An object store puts files whole, so
it needs neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from item_llm.local_files import LocalFiles

if TYPE_CHECKING:
    import pyarrow as pa

PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
_FRAGMENTS = 64  # small files worth merging into one
_DELETED_AT_ONCE = 100_000
_RETRIES = 50  # of a merge whose version another writer has taken meanwhile


class LanceTable:
    """Rows in a Lance dataset; calls that write need the caller's lock where there is one.

    Args:
        place: a folder, or an s3:// address (credentials and endpoint come from the usual
            AWS_* variables).
        schema: its first column is the primary key: not null, with `PRIMARY_KEY` as metadata, of
            type string or binary (with fixed_size_binary writers at once leave duplicates).
    """

    def __init__(self, place: str, schema: pa.Schema) -> None:
        self.place = place
        self.schema = schema
        self.key = schema.names[0]
        self._files = None if "://" in place else LocalFiles(Path(place))
        self._dataset: Any = None

    def open(self, metadata: dict[str, str]) -> None:
        """Open the newest version that can be read, or make an empty table.

        Raises:
            ValueError: the table is not readable (the message names the file), or is a table of
                another metadata.
        """
        self._dataset = self._newest() or self._create(metadata)
        if self._files is not None:
            self._files.sync()
        raw = self._dataset.schema.metadata or {}
        got = {k.decode(): v.decode() for k, v in raw.items()}
        if got != metadata:
            raise ValueError(
                f"{self.place}: table of {got}, expected {metadata}; delete it and encode again"
            )

    def reopen(self) -> None:
        """See what others have committed since."""
        self._dataset.checkout_latest()

    @property
    def version(self) -> int:
        """The version that reads see."""
        return int(self._dataset.version)

    def read(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """Columns of all rows, or of those that an SQL predicate holds for, in no fixed order."""
        return self._dataset.to_table(columns=list(columns), filter=where)

    def batches(self, tag: str | None = None) -> Iterator[pa.RecordBatch]:
        """All rows of the open version, or of a tagged one, some ten thousands at a time."""
        yield from self._at(tag).to_batches(batch_size=65_536)

    def chosen(self, keys: Sequence[bytes]) -> list[pa.RecordBatch]:
        """The rows of some keys, in no order that means anything."""
        listed = ", ".join(map(sql_literal, keys))
        return self._dataset.to_batches(filter=f"{self.key} IN ({listed})") if keys else []

    def insert(self, rows: pa.Table) -> int:
        """Commit the rows whose keys are not there yet; durable when this returns.

        Returns:
            How many were inserted.

        Raises:
            ValueError: the table then holds a key twice (it must be thrown away).
        """
        merge = self._dataset.merge_insert(self.key).when_not_matched_insert_all()
        done = merge.conflict_retries(_RETRIES).execute(rows)
        self._committed()
        return int(done["num_inserted_rows"])

    def upsert(self, rows: pa.Table) -> None:
        """Commit rows, in place of those with their keys; durable when this returns.

        Raises:
            ValueError: the table then holds a key twice (it must be thrown away).
        """
        merge = self._dataset.merge_insert(self.key)
        merge = merge.when_matched_update_all().when_not_matched_insert_all()
        merge.conflict_retries(_RETRIES).execute(rows)
        self._committed()

    def delete(self, keys: Sequence[bytes] | Sequence[str]) -> None:
        """Commit the removal of rows; durable when this returns."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            listed = ", ".join(map(sql_literal, keys[start : start + _DELETED_AT_ONCE]))
            self._dataset.delete(f"{self.key} IN ({listed})")
        if keys:
            self._committed()

    def delete_where(self, predicate: str) -> None:
        """Commit the removal of the rows that an SQL predicate holds for."""
        self._dataset.delete(predicate)
        self._committed()

    def tag(self, name: str) -> None:
        """Give the open version a name that keeps it; an older version of this name loses it."""
        if name in self._dataset.tags.list():
            self._dataset.tags.update(name, self.version)
        else:
            self._dataset.tags.create(name, self.version)
        self._sync()

    def tags(self) -> dict[str, int]:
        """The tagged versions."""
        return {name: int(tag["version"]) for name, tag in self._dataset.tags.list().items()}

    def compact(self) -> None:
        """Merge many small files into few, once there are enough of them."""
        if len(self._dataset.get_fragments()) >= _FRAGMENTS:
            self._dataset.optimize.compact_files()
            self._committed()

    def drop_old_versions(self) -> int:
        """Delete all versions but the newest and the tagged; returns the bytes that are free now.

        On a local disk what killed writers left goes too; in an object store only after a week,
        because another writer may be about to name it.
        """
        self._dataset.optimize.compact_files()
        self._committed()
        dropped = self._dataset.cleanup_old_versions(
            older_than=timedelta(0),
            delete_unverified=self._files is not None,
            error_if_tagged_old_versions=False,
        )
        self._sync()
        return int(dropped.bytes_removed)

    def _at(self, tag: str | None) -> Any:
        import lance

        if tag is None:
            return self._dataset
        if tag not in (known := self.tags()):
            raise ValueError(
                f"{self.place}: no version is tagged {tag!r}; the tags are "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        return lance.dataset(self.place, version=tag)

    def _create(self, metadata: dict[str, str]) -> Any:
        import lance

        made = lance.LanceOperation.Overwrite(self.schema.with_metadata(metadata), [])
        try:
            # Not write_dataset(mode="create"): of two writers at once (an object store has no
            # lock) the second overwrites what the first has committed by then. Without retries
            # an Overwrite is refused where a version is there already.
            return lance.LanceDataset.commit(self.place, made, read_version=0, max_retries=0)
        except OSError as error:
            try:
                return self._readable()
            except (OSError, ValueError):
                raise error from None

    def _newest(self) -> Any:
        """The newest readable version, or None where no version was ever begun."""
        if self._files is None:
            return self._in_object_store()
        manifests = self._files.manifests()
        if not manifests:
            return None
        try:
            return self._readable()
        except (OSError, ValueError) as error:
            self._go_back(manifests, error)
            return self._readable()

    def _in_object_store(self) -> Any:
        try:
            return self._readable()
        except (OSError, ValueError) as error:
            if "was not found" in str(error):
                return None
            raise ValueError(
                f"{self.place}: not readable ({error}); check the address and the AWS_* variables"
            ) from error

    def _readable(self, version: int | None = None) -> Any:
        """A version, after its keys were read: whatever of its files is torn raises here."""
        import lance

        dataset = lance.dataset(self.place, version=version)
        try:
            dataset.to_table(columns=[self.key])
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.place}: {self._torn_file(dataset)}: {error}") from error
        return dataset

    def _torn_file(self, dataset: Any) -> str:
        for fragment in dataset.get_fragments():
            try:
                fragment.to_table(columns=[self.key])
            except (OSError, ValueError):
                return ", ".join(f"data/{file.path}" for file in fragment.data_files())
        return "a file"

    def _go_back(self, manifests: list[tuple[int, Path]], error: Exception) -> None:
        """Set the newest version aside, if the one before it is whole."""
        assert self._files is not None
        version, path = manifests[0]
        try:
            if len(manifests) < 2:
                raise ValueError("there is no earlier version")
            self._readable(manifests[1][0])
        except (OSError, ValueError) as also:
            raise ValueError(
                f"{path}: version {version} is not readable ({error}), and no earlier version to "
                f"go back to ({also}); delete {self.place} and encode again"
            ) from error
        self._files.set_aside(version, path, error)

    def _committed(self) -> None:
        self._sync()
        self.reopen()
        self._check_distinct()

    def _sync(self) -> None:
        if self._files is not None:
            self._files.sync()

    def _check_distinct(self) -> None:
        import pyarrow.compute as pc

        rows = self._dataset.count_rows()
        distinct = pc.count_distinct(self.read([self.key])[self.key]).as_py()
        if rows != distinct:
            raise ValueError(
                f"{self.place}: {rows} rows but {distinct} distinct keys after a commit; "
                "something wrote to it by other means: delete the table and encode again"
            )


def sql_literal(key: bytes | str) -> str:
    """A key as it is written in a predicate."""
    return f"X'{key.hex()}'" if isinstance(key, bytes) else "'" + key.replace("'", "''") + "'"
