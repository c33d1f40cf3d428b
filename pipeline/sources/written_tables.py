"""Any source's tables as Parquet files, a part at a time: what other programs read, and `table`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from pipeline.sources.tables import Part, RawTables
from pipeline.spill import gathered
from pipeline.whole_files import flush

INTERACTIONS, ITEMS = "interactions.parquet", "items.parquet"
_GROUP_BYTES = 16 << 20  # of a row group, about; our choice [D]
_EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
_TEXTS = {"item_id": pl.String, "title": pl.String}


def write_tables(raw: RawTables, folder: Path) -> tuple[int, int]:
    """Write FOLDER/interactions.parquet and FOLDER/items.parquet, whole or not at all.

    The columns are user_id, item_id, timestamp, and item_id, title: those that format `table` has
    by default. Equal parts give equal bytes, however they are cut. Memory is bounded by a part.

    Args:
        raw: what a source gives, none of it refused.
        folder: to be made.

    Returns:
        The rows of both.

    Raises:
        ValueError: the folder exists, or a row was refused.
    """
    if folder.exists():
        raise ValueError(f"cannot write tables to {folder}: it exists; remove it first")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        events = _write(aside / INTERACTIONS, raw.interactions, _EVENTS)
        items = _write(aside / ITEMS, raw.items, _TEXTS)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    flush(folder.parent)
    return events, items


def _write(path: Path, parts: Iterable[Part], schema: Mapping[str, type[pl.DataType]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    oldest = pl.CompatLevel.oldest()
    kinds = pl.DataFrame(schema=schema).to_arrow(compat_level=oldest).schema
    rows = 0
    with pq.ParquetWriter(path, kinds, compression="zstd") as writer:
        for table in gathered(_good(parts), _GROUP_BYTES):
            columns = table.rename(dict(zip(table.columns, schema, strict=True)))
            group = columns.to_arrow(compat_level=oldest)
            assert isinstance(group, pa.Table)
            writer.write_table(group, row_group_size=table.height)
            rows += table.height
    flush(path)
    return rows


def _good(parts: Iterable[Part]) -> Iterator[pl.DataFrame]:
    for part in parts:
        if part.rejected:
            raise ValueError(f"{part.rejected[0]}: mend the file before it is written as a table")
        yield part.rows
