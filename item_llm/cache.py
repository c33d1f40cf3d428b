"""Item vectors that outlive a run, keyed by hash(encoder fingerprint, normalised text).

    FOLDER/FINGERPRINT/vectors.lance    key, vector, checksum of both
    FOLDER/FINGERPRINT/items.lance      which key an item of a domain has: see item_keys.py

One folder for each fingerprint: a tuned encoder never sees a frozen one's vectors. Many processes
may encode; one at a time commits. Keys do not depend on the corpus, so what one run encoded the
next one reuses, whatever its domains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from item_llm.file_lock import exclusive
from item_llm.lance_table import LanceTable
from item_llm.prompts import normalise_text
from item_llm.snapshot import Snapshot, SnapshotType, write_snapshot
from item_llm.text_keys import checked_fingerprint, keys_of, order_of
from item_llm.vector_rows import checked_vectors, rows_of, vector_schema, verified

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 4096  # texts in one commit of a refresh: what a crash can lose
_LOCK = "lock"


class Encoder(Protocol):
    """What the cache asks of an encoder."""

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides a text's vector."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, d], in the order of `texts`."""


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did, in distinct texts.

    Attributes:
        encoded: texts that were missing and have a vector now.
        reused: texts that had one.
        removed: rows deleted because no text asked for them.
        version: the table's version afterwards.
    """

    encoded: int
    reused: int
    removed: int
    version: int


class EmbeddingCache:
    """The vectors of one encoder."""

    def __init__(self, folder: str, fingerprint: str, dim: int) -> None:
        self.folder = folder  # of this fingerprint
        self.fingerprint = fingerprint
        self.dim = dim
        self._table = LanceTable(f"{folder}/vectors.lance", vector_schema(dim))
        self._keys: pa.Array
        self._holds_lock = False

    @classmethod
    def open(cls, path: Path | str, fingerprint: str, dim: int) -> EmbeddingCache:
        """Open the table of `fingerprint` in the folder `path`, or make an empty one.

        A newest version that a power cut has torn is set aside with a warning.

        Args:
            path: folder of all tables: on a local or shared file system, or s3://.
            fingerprint: `ItemEncoder.fingerprint`.
            dim: width of its vectors.

        Raises:
            ValueError: a malformed fingerprint, or a table of another width or that cannot be
                read; the message names the file.
        """
        place = f"{str(path).rstrip('/')}/{checked_fingerprint(fingerprint)}"
        cache = cls(place, fingerprint, dim)
        if not cache.is_remote:
            Path(place).mkdir(parents=True, exist_ok=True)
        with cache.locked():
            cache._table.open({"fingerprint": fingerprint, "dim": str(dim)})
        cache._load_keys()
        return cache

    @property
    def is_remote(self) -> bool:
        """Whether the cache is in an object store."""
        return "://" in self.folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the right to commit; an object store has no lock, only Lance's own retries."""
        if self.is_remote or self._holds_lock:
            yield
            return
        with exclusive(Path(self.folder) / _LOCK):
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def version(self) -> int:
        """The table's version that this object sees."""
        return self._table.version

    def missing(self, items: Iterable[str]) -> list[str]:
        """The distinct normalised texts that have no vector yet, in the order they first come.

        Args:
            items: the items' texts.
        """
        texts = items if isinstance(items, Sequence) else list(items)
        keys = keys_of(self.fingerprint, texts)
        return [normalise_text(texts[i]) for i in self.absent(keys)]

    def absent(self, keys: pa.Array) -> np.ndarray:
        """Where in `keys` the distinct ones that have no vector come first, int64, ascending."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._reload()
        gone = np.flatnonzero(~pc.is_in(keys, value_set=self._keys).to_numpy(zero_copy_only=False))
        codes = keys.take(pa.array(gone)).dictionary_encode().indices.to_numpy()
        _, first = np.unique(codes, return_index=True)
        return gone[np.sort(first)]

    def commit(self, batches: Iterable[tuple[Sequence[str], np.ndarray]]) -> int:
        """Store vectors, one durable commit a batch; texts that have one keep it.

        Args:
            batches: pairs of n texts and their float32 [n, dim] vectors.

        Returns:
            How many vectors are new.

        Raises:
            ValueError: a batch of another shape or type, or with a vector that is all zeros or
                not finite; batches before it stay.
        """
        added = 0
        for texts, vectors in batches:
            checked_vectors(texts, vectors, self.dim)
            keys = keys_of(self.fingerprint, texts)
            with self.locked():
                fresh = self.absent(keys)
                if len(fresh):
                    added += self._table.insert(rows_of(keys, vectors, fresh, self._table.schema))
                    self._load_keys()
        return added

    def refresh(
        self, items: Sequence[str], encoder: Encoder, *, prune: bool = False
    ) -> RefreshReport:
        """Encode and commit what is missing, block by block; a crash loses one block at most.

        Args:
            items: the texts that must have a vector afterwards.
            encoder: its fingerprint must be the cache's.
            prune: delete rows that `items` does not ask for (other runs may need them).

        Raises:
            ValueError: an encoder with another fingerprint.
        """
        if encoder.fingerprint != self.fingerprint:
            raise ValueError(
                f"the encoder's fingerprint is {encoder.fingerprint}, this table's is "
                f"{self.fingerprint}: open the cache with the encoder's own fingerprint"
            )
        missing = self.missing(items)
        self.commit(blocks_encoded(missing, encoder))
        wanted = keys_of(self.fingerprint, items).unique()
        removed = self.keep_only(wanted) if prune else 0
        self.compact()
        return RefreshReport(len(missing), len(wanted) - len(missing), removed, self.version)

    def snapshot(
        self,
        texts: Sequence[str],
        folder: Path,
        *,
        dtype: SnapshotType = "float32",
        tag: str | None = None,
    ) -> Snapshot:
        """Write the vectors of `texts`, in that order, as a dense file that training maps.

        Args:
            texts: of each row.
            folder: made if absent.
            dtype: how the vectors are stored.
            tag: of the version to read; None: the newest.

        Raises:
            ValueError: a text without a vector, a row whose checksum is wrong, no such tag.
        """
        self._reload()
        keys = keys_of(self.fingerprint, texts)
        version = self.version if tag is None else self.tags().get(tag, 0)
        source = {"fingerprint": self.fingerprint, "table_version": version}
        rows = verified(self._table.batches(tag), self._table.place)
        where = f"{self._table.place} version {version}"
        write_snapshot(folder, (texts, keys), rows, self.dim, source, dtype=dtype, where=where)
        return Snapshot.open(folder, fingerprint=self.fingerprint, order=order_of(keys))

    def order(self, texts: Sequence[str]) -> str:
        """The checksum of an order of texts, as `Snapshot.open` compares it."""
        return order_of(keys_of(self.fingerprint, texts))

    def vectors(self, keys: pa.Array) -> np.ndarray:
        """Some stored vectors, float32 [n, d], in the order of distinct keys, binary [n].

        Raises:
            ValueError: a key has none, or a checksum is wrong.
        """
        import pyarrow.compute as pc

        self._reload()
        out = np.full((len(keys), self.dim), np.nan, dtype=np.float32)
        for found, vectors in verified(self._table.chosen(keys.to_pylist()), self._table.place):
            out[pc.index_in(found, value_set=keys).to_numpy()] = vectors
        if without := int(np.isnan(out[:, 0]).sum()):
            raise ValueError(f"{self._table.place}: {without} of {len(out)} keys have no vector")
        return out

    def tag(self, name: str) -> int:
        """Keep the newest version under a name, for a run that trained on it; returns it.

        Args:
            name: letters, digits, `-`, `_` and `.`; a version that had it loses it.
        """
        with self.locked():
            self._reload()
            self._table.tag(name)
        return self.version

    def tags(self) -> dict[str, int]:
        """The versions that are kept, by name."""
        return self._table.tags()

    def keep_only(self, wanted: pa.Array) -> int:
        """Delete the rows whose keys are not in `wanted`; tagged versions still have them."""
        import pyarrow.compute as pc

        with self.locked():
            self._reload()
            unwanted = self._keys.filter(pc.invert(pc.is_in(self._keys, value_set=wanted)))
            self._table.delete(unwanted.to_pylist())
            self._load_keys()
        return len(unwanted)

    def compact(self) -> None:
        """Merge many small files into few, once there are enough of them."""
        with self.locked():
            self._reload()
            self._table.compact()

    def drop_old_versions(self) -> int:
        """Delete all versions but the newest and the tagged; returns the bytes that are free."""
        with self.locked():
            self._reload()
            return self._table.drop_old_versions()

    def _reload(self) -> None:
        before = self._table.version
        self._table.reopen()
        if self._table.version != before:
            self._load_keys()

    def _load_keys(self) -> None:
        self._keys = self._table.read(["key"])["key"].combine_chunks()


def blocks_encoded(
    texts: Sequence[str], encoder: Encoder
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blocks of texts with their vectors; like lengths share a block, so batches pad little."""
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        yield block, encoder.encode(block)
