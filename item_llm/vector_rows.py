"""Rows of the vectors' table: what may be stored, and the checksum by which a row is believed.

A row is (key, float32 vector, crc32 over both): a vector that was shifted to another key, or
damaged on its way, does not pass for one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from item_llm.lance_table import PRIMARY_KEY

if TYPE_CHECKING:
    import pyarrow as pa


def vector_schema(width: int) -> pa.Schema:
    """Columns: key binary, vector float32 [width], checksum uint32."""
    import pyarrow as pa

    key = pa.field("key", pa.binary(), nullable=False, metadata=PRIMARY_KEY)
    vector = pa.field("vector", pa.list_(pa.float32(), width))
    return pa.schema([key, vector, pa.field("checksum", pa.uint32())])


def checked_vectors(texts: Sequence[str], vectors: np.ndarray, width: int) -> None:
    """See that vectors may be stored.

    Raises:
        ValueError: they are not float32 [len(texts), width], or one is not finite or all zeros.
    """
    expected = (len(texts), width)
    if vectors.shape != expected or vectors.dtype != np.float32:
        raise ValueError(
            f"vectors are {vectors.dtype} {list(vectors.shape)}, expected float32 "
            f"{list(expected)} ({len(texts)} texts, width {width})"
        )
    for what, bad in unusable(vectors).items():
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {len(texts)} vectors are {what}, the first for the text "
                f"{texts[bad[0]]!r}; nothing of this batch was stored"
            )


def unusable(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Positions of the vectors [n, d] that tell nothing of an item, by what is wrong with them."""
    return {
        "not finite": np.flatnonzero(~np.isfinite(vectors).all(axis=1)),
        "all zeros": np.flatnonzero(~vectors.any(axis=1)),
    }


def rows_of(keys: pa.Array, vectors: np.ndarray, chosen: np.ndarray, schema: pa.Schema) -> pa.Table:
    """A table of the rows at the positions `chosen`, int64 [k], of keys [n] and vectors [n, d]."""
    import pyarrow as pa

    keys = keys.take(pa.array(chosen))
    vectors = np.ascontiguousarray(vectors[chosen])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    sums = pa.array(_checksums(keys, vectors), pa.uint32())
    return pa.table([keys, column, sums], schema=schema)


def verified(
    batches: Iterable[pa.RecordBatch], where: str
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Keys [n] and vectors float32 [n, d] of each batch, after their checksums were compared.

    Raises:
        ValueError: a row is damaged; the message names the table and the key.
    """
    for batch in batches:
        keys, column = batch.column("key"), batch.column("vector")
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(keys), -1)
        bad = np.flatnonzero(_checksums(keys, vectors) != batch.column("checksum").to_numpy())
        if len(bad):
            raise ValueError(
                f"{where}: the vector of key {keys[int(bad[0])].as_py().hex()} is damaged "
                f"(its checksum is wrong; so are {len(bad) - 1} more); delete the table and "
                "encode again"
            )
        yield keys, vectors


def _checksums(keys: pa.Array, vectors: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(vectors, dtype="<f4").view(np.uint8)
    sums = (
        zlib.crc32(row, zlib.crc32(key)) for key, row in zip(keys.to_pylist(), rows, strict=True)
    )
    return np.fromiter(sums, np.uint32, len(rows))
