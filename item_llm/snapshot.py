"""A dense copy of item vectors in the caller's order, for training to map into memory.

    vectors.f32     float32, little-endian, C order, [n, d]
    manifest.json   encoder fingerprint, shape, sha256 of the data, sha256 of the order of keys

Row i is the vector of the i-th text the caller gave; whatever does not match raises on open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from item_llm.folders import MANIFEST, read_manifest, write_manifest

_KIND = "item vector snapshot"
_DATA = "vectors.f32"


@dataclass(frozen=True)
class Snapshot:
    """Item vectors of one encoder in one order.

    Attributes:
        vectors: float32 [n, d], read-only, memory-mapped.
        fingerprint: of the encoder that made them.
        order: checksum of the order of the texts' keys.
        table_version: of the cache's table that was read.
    """

    vectors: np.ndarray
    fingerprint: str
    order: str
    table_version: int

    @classmethod
    def open(cls, folder: Path, *, fingerprint: str, order: str | None = None) -> Snapshot:
        """Map a snapshot, after checking its data and what it was made for.

        Args:
            folder: written by `EmbeddingCache.snapshot`.
            fingerprint: of the encoder whose vectors are wanted.
            order: `EmbeddingCache.order` of the texts, where the caller has them.

        Raises:
            ValueError: no finished snapshot, damaged data, or another fingerprint, order or size.
        """
        manifest = read_manifest(folder, _KIND)
        _compare(folder, "fingerprint", manifest["fingerprint"], fingerprint)
        if order is not None:
            _compare(folder, "order of items", manifest["order"], order)
        shape = tuple(manifest["shape"])
        size = (folder / _DATA).stat().st_size
        _compare(folder, "size in bytes", size, 4 * shape[0] * shape[1])
        vectors = (
            np.memmap(folder / _DATA, dtype="<f4", mode="r", shape=shape)
            if shape[0]
            else np.zeros(shape, dtype=np.float32)
        )
        return cls(vectors, fingerprint, manifest["order"], manifest["table_version"])


def order_sha256(keys: Iterable[str]) -> str:
    """Checksum over keys in their order, and so over their count."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(key.encode() + b"\n")
    return digest.hexdigest()


def write_snapshot(
    folder: Path,
    keys: Sequence[str],
    rows: Iterable[tuple[list[str], np.ndarray]],
    dim: int,
    source: Mapping[str, Any],
) -> None:
    """Write vectors in the order of `keys`, which may repeat; the manifest comes last.

    Args:
        folder: made if absent; an older snapshot in it is unfinished from the first byte written.
        keys: key of each row of the snapshot.
        rows: blocks of keys and float32 [rows, dim] vectors that cover `keys`, in any order.
        dim: width of a vector.
        source: fields for the manifest: fingerprint, table_version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    order, inverse = np.unique(np.array(keys, dtype=str), return_inverse=True)
    distinct = np.empty((len(order), dim), dtype="<f4")
    position = {key: i for i, key in enumerate(order.tolist())}
    filled = np.zeros(len(order), dtype=bool)
    for block_keys, vectors in rows:
        taken = [(position[k], i) for i, k in enumerate(block_keys) if k in position]
        if taken:
            to, of = np.array(taken).T
            distinct[to] = vectors[of]
            filled[to] = True
    assert filled.all(), "the table has no row for a key that it was said to hold"
    with (folder / _DATA).open("wb") as file:
        for start in range(0, len(keys), 65_536):
            file.write(distinct[inverse[start : start + 65_536]].tobytes())
    fields = {**source, "shape": [len(keys), dim], "order": order_sha256(keys)}
    write_manifest(folder, _KIND, fields)


def _compare(folder: Path, what: str, got: object, expected: object) -> None:
    if got != expected:
        raise ValueError(
            f"snapshot {folder}: {what} is {got}, expected {expected}; "
            "write the snapshot again for this encoder and these items"
        )
