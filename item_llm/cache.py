"""Item vectors that outlive a run, keyed by hash(encoder fingerprint, normalised text).

One table for each fingerprint: a tuned encoder never sees a frozen one's vectors. Many processes
may encode; one at a time commits. Keys do not depend on the corpus, so what one run encoded the
next one reuses, whatever its domains.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from item_llm.file_lock import exclusive
from item_llm.lance_table import LanceTable
from item_llm.prompts import normalise_text
from item_llm.snapshot import Snapshot, order_sha256, write_snapshot

_BLOCK = 1024  # texts in one commit of a refresh: what a crash can lose


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


def text_key(fingerprint: str, text: str) -> str:
    """Hex sha256 that a text's vector is stored under."""
    return hashlib.sha256(f"{fingerprint}\n{normalise_text(text)}".encode()).hexdigest()


class EmbeddingCache:
    """The vectors of one encoder."""

    def __init__(self, path: Path, fingerprint: str, dim: int) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.dim = dim
        self._table = LanceTable(path / f"{fingerprint}.lance", dim)
        self._lock = path / f"{fingerprint}.lock"
        self._known: set[str] = set()

    @classmethod
    def open(cls, path: Path | str, fingerprint: str, dim: int) -> EmbeddingCache:
        """Open the table of `fingerprint` in the folder `path`, or make an empty one.

        Args:
            path: folder of all tables, on a local or shared file system.
            fingerprint: `ItemEncoder.fingerprint`.
            dim: width of its vectors.

        Raises:
            ValueError: an object-store address, a malformed fingerprint, or a table of another
                width or that cannot be read.
        """
        if "://" in str(path):
            raise ValueError(f"cache path {str(path)!r}: only local folders are supported so far")
        if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
            raise ValueError(f"fingerprint {fingerprint!r}: expected 64 hexadecimal digits")
        cache = cls(Path(path), fingerprint, dim)
        cache.path.mkdir(parents=True, exist_ok=True)
        wanted = {"fingerprint": fingerprint, "dim": str(dim)}
        with exclusive(cache._lock):
            if not cache._table.exists:
                cache._table.create(wanted)
            cache._table.open()
        got = cache._table.metadata()
        if got != wanted:
            raise ValueError(f"{cache._table.path}: table of {got}, expected {wanted}; delete it")
        cache._known = set(cache._table.keys())
        return cache

    def __len__(self) -> int:
        return len(self._known)

    @property
    def version(self) -> int:
        """The table's version that this object sees."""
        return self._table.version

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The distinct normalised texts that have no vector yet, in the order they first come."""
        self._reload()
        distinct = dict.fromkeys(normalise_text(text) for text in texts)
        return [text for text in distinct if text_key(self.fingerprint, text) not in self._known]

    def commit(self, batches: Iterable[tuple[Sequence[str], np.ndarray]]) -> int:
        """Store vectors, one durable commit a batch; texts that have one keep it.

        Args:
            batches: pairs of n texts and their float32 [n, dim] vectors.

        Returns:
            How many vectors are new.

        Raises:
            ValueError: a batch of another shape or type, or with a value that is not finite;
                batches before it stay.
        """
        added = 0
        for texts, vectors in batches:
            self._check(texts, vectors)
            rows = {text_key(self.fingerprint, text): i for i, text in enumerate(texts)}
            with exclusive(self._lock):
                self._reload()
                fresh = [key for key in rows if key not in self._known]
                if fresh:
                    self._table.insert(fresh, vectors[[rows[key] for key in fresh]])
                    self._known.update(fresh)
            added += len(fresh)
        return added

    def refresh(
        self, texts: Sequence[str], encoder: Encoder, *, prune: bool = False
    ) -> RefreshReport:
        """Encode and commit what is missing, block by block; a crash loses one block at most.

        Args:
            texts: the texts that must have a vector afterwards.
            encoder: its fingerprint must be the cache's.
            prune: delete rows that `texts` does not ask for (other runs may need them).

        Raises:
            ValueError: an encoder with another fingerprint.
        """
        if encoder.fingerprint != self.fingerprint:
            raise ValueError(
                f"the encoder's fingerprint is {encoder.fingerprint}, this table's is "
                f"{self.fingerprint}: open the cache with the encoder's own fingerprint"
            )
        wanted = {text_key(self.fingerprint, text) for text in texts}
        missing = self.missing(texts)
        self.commit(_encoded(missing, encoder))
        removed = self._prune(wanted) if prune else 0
        with exclusive(self._lock):
            self._reload()
            self._table.compact()
        return RefreshReport(len(missing), len(wanted) - len(missing), removed, self.version)

    def snapshot(self, texts: Sequence[str], folder: Path) -> Snapshot:
        """Write the vectors of `texts`, in that order, as a dense file that training maps.

        Raises:
            ValueError: a text without a vector.
        """
        self._reload()
        keys = [text_key(self.fingerprint, text) for text in texts]
        for text, key in zip(texts, keys, strict=True):
            if key not in self._known:
                raise ValueError(f"{self._table.path}: no vector for {text!r}; refresh first")
        source = {"fingerprint": self.fingerprint, "table_version": self.version}
        write_snapshot(folder, keys, self._table.rows(), self.dim, source)
        return Snapshot.open(folder, fingerprint=self.fingerprint, order=self.order(texts))

    def order(self, texts: Iterable[str]) -> str:
        """The checksum of an order of texts, as `Snapshot.open` compares it."""
        return order_sha256(text_key(self.fingerprint, text) for text in texts)

    def _reload(self) -> None:
        before = self._table.version
        self._table.reopen()
        if self._table.version != before:
            self._known = set(self._table.keys())

    def _prune(self, wanted: set[str]) -> int:
        with exclusive(self._lock):
            self._reload()
            unwanted = sorted(self._known - wanted)
            if unwanted:
                self._table.delete(unwanted)
                self._known -= set(unwanted)
        return len(unwanted)

    def _check(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        expected = (len(texts), self.dim)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise ValueError(
                f"vectors are {vectors.dtype} {list(vectors.shape)}, expected float32 "
                f"{list(expected)} ({len(texts)} texts, width {self.dim})"
            )
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {len(texts)} vectors are not finite, the first for the text "
                f"{texts[bad[0]]!r}; nothing of this batch was stored"
            )


def _encoded(texts: list[str], encoder: Encoder) -> Iterator[tuple[list[str], np.ndarray]]:
    """Blocks of texts with their vectors; like lengths share a block, so batches pad little."""
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        yield block, encoder.encode(block)
