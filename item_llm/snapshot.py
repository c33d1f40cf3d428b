"""A dense copy of item vectors in the caller's order, for training and serving to map into memory.

    vectors.f32     little-endian, C order, [n, d]: float32, or vectors.f16, or vectors.i8
    scales.f32      int8 only: float32 [n]; row i is vectors[i] * scales[i]
    manifest.json   encoder fingerprint, dtype, shape, sha256 of the data, sha256 of the order

Row i is the vector of the i-th text the caller gave; whatever does not match raises on open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from item_llm.folders import MANIFEST, read_manifest, write_manifest
from item_llm.text_keys import order_of

if TYPE_CHECKING:
    import pyarrow as pa

_KIND = "item vector snapshot"
_SCALES = "scales.f32"
_BLOCK = 65_536

SnapshotType = Literal["float32", "float16", "int8"]
_FILES: dict[SnapshotType, tuple[str, str]] = {
    "float32": ("vectors.f32", "<f4"),
    "float16": ("vectors.f16", "<f2"),
    "int8": ("vectors.i8", "|i1"),
}


@dataclass(frozen=True)
class Snapshot:
    """Item vectors of one encoder in one order.

    Attributes:
        vectors: as stored, [n, d], read-only, memory-mapped: float32, float16 or int8.
        scales: float32 [n] of int8 vectors; else None.
        fingerprint: of the encoder that made them.
        order: checksum of the order of the texts' keys.
        table_version: of the cache's table that was read.
    """

    vectors: np.ndarray
    scales: np.ndarray | None
    fingerprint: str
    order: str
    table_version: int

    @classmethod
    def open(
        cls, folder: Path, *, fingerprint: str, order: str | None = None, verify: bool = False
    ) -> Snapshot:
        """Map a snapshot, after checking what it was made for.

        Args:
            folder: written by `EmbeddingCache.snapshot`.
            fingerprint: of the encoder whose vectors are wanted.
            order: `EmbeddingCache.order` of the texts, where the caller has them.
            verify: read every byte and compare checksums.

        Raises:
            ValueError: no finished snapshot, another fingerprint (both are told), order or size,
                or, with `verify`, damaged data.
        """
        manifest = read_manifest(folder, _KIND, verify=verify)
        _compare(folder, "fingerprint", manifest["fingerprint"], fingerprint)
        if order is not None:
            _compare(folder, "order of items", manifest["order"], order)
        shape, dtype = tuple(manifest["shape"]), manifest["dtype"]
        name, stored = _FILES[dtype]
        vectors = _mapped(folder, name, stored, shape)
        scales = _mapped(folder, _SCALES, "<f4", shape[:1]) if dtype == "int8" else None
        return cls(vectors, scales, fingerprint, manifest["order"], manifest["table_version"])

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, chosen: slice | np.ndarray) -> np.ndarray:
        """A copy of some rows, float32 [k, d], whatever they are stored as.

        Args:
            chosen: a slice, or int64 [k] positions.
        """
        rows = np.array(self.vectors[chosen], dtype=np.float32)
        return rows if self.scales is None else rows * self.scales[chosen, None]


def write_snapshot(
    folder: Path,
    asked: tuple[Sequence[str], pa.Array],
    rows: Iterable[tuple[pa.Array, np.ndarray]],
    dim: int,
    source: Mapping[str, Any],
    *,
    dtype: SnapshotType,
    where: str,
) -> None:
    """Write vectors in the order of the keys that are asked for; the manifest comes last.

    Args:
        folder: made if absent; an older snapshot in it is unfinished from the first byte written.
        asked: text and key of each row of the snapshot; they may repeat.
        rows: blocks of keys and float32 [rows, dim] vectors that cover `asked`, in any order.
        dim: width of a vector.
        source: fields for the manifest: fingerprint, table_version.
        dtype: how the vectors are stored.
        where: the rows come from, for messages.

    Raises:
        ValueError: a text has no vector; nothing was written.
    """
    texts, keys = asked
    encoded = keys.dictionary_encode()
    distinct = _gathered(encoded.dictionary, rows, dim)
    inverse = encoded.indices.to_numpy()
    if len(without := np.flatnonzero(np.isnan(distinct[inverse, 0]))):
        raise ValueError(f"{where}: no vector for {texts[without[0]]!r}; refresh first")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    _drop_data(folder)
    _write_data(folder, distinct, inverse, dtype)
    fields = {**source, "dtype": dtype, "shape": [len(keys), dim], "order": order_of(keys)}
    write_manifest(folder, _KIND, fields)


def _gathered(keys: pa.Array, rows: Iterable[tuple[pa.Array, np.ndarray]], dim: int) -> np.ndarray:
    """float32 [len(keys), dim] in the order of `keys`; NaN where there is no row."""
    import pyarrow.compute as pc

    gathered = np.full((len(keys), dim), np.nan, dtype=np.float32)
    for block, vectors in rows:
        at = pc.index_in(block, value_set=keys)
        known = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
        gathered[at.drop_null().to_numpy()] = vectors[known]
    return gathered


def _write_data(
    folder: Path, distinct: np.ndarray, inverse: np.ndarray, dtype: SnapshotType
) -> None:
    name, stored = _FILES[dtype]
    scales = None
    if dtype == "int8":
        scales = (np.abs(distinct).max(axis=1, initial=0) / 127).astype("<f4")
        (folder / _SCALES).write_bytes(scales[inverse].tobytes())
    with (folder / name).open("wb") as file:
        for start in range(0, len(inverse), _BLOCK):
            chosen = inverse[start : start + _BLOCK]
            block = distinct[chosen]
            if scales is not None:
                block = np.rint(block / scales[chosen, None])
            file.write(block.astype(stored).tobytes())


def _drop_data(folder: Path) -> None:
    for name in (_SCALES, *(name for name, _ in _FILES.values())):
        (folder / name).unlink(missing_ok=True)


def _mapped(folder: Path, name: str, stored: str, shape: tuple[int, ...]) -> np.ndarray:
    path, size = folder / name, int(np.prod(shape)) * np.dtype(stored).itemsize
    got = path.stat().st_size if path.is_file() else 0
    _compare(folder, f"size of {name} in bytes", got, size)
    if not size:
        return np.zeros(shape, dtype=stored)
    return np.memmap(path, dtype=stored, mode="r", shape=shape)


def _compare(folder: Path, what: str, got: object, expected: object) -> None:
    if got != expected:
        raise ValueError(
            f"snapshot {folder}: {what} is {got}, expected {expected}; "
            "write the snapshot again for this encoder and these items"
        )
