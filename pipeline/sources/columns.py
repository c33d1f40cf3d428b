"""Named columns out of a CSV, TSV, JSONL or Parquet file, or a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pipeline.sources.blocks import first_lines
from pipeline.sources.csv_records import csv_records
from pipeline.sources.delimited import CSV, TSV, delimited_pieces
from pipeline.sources.json_lines import first_objects, json_pieces
from pipeline.sources.parquet_folders import folder_files, folder_pieces
from pipeline.sources.parquet_rows import parquet_pieces, parquet_schema
from pipeline.sources.pieces import Piece

TableKind = Literal["csv", "tsv", "jsonl", "parquet"]
_KINDS: dict[str, TableKind] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def table_kind(path: Path) -> TableKind:
    """The kind of a table by its name, with .gz taken off.

    Raises:
        ValueError: the name ends otherwise.
    """
    name = path.name.removesuffix(".gz")
    kind = _KINDS.get(Path(name).suffix.lower())
    if kind is None or (kind == "parquet" and name != path.name):
        raise ValueError(
            f"the table {path.name!r} has an unknown ending: expected .csv, .tsv, .jsonl or "
            ".ndjson (each also .gz), or .parquet"
        )
    return kind


def table_files(table: Path) -> tuple[Path, ...]:
    """The files of a table: of a folder its Parquet files, else the one file, there or not.

    Raises:
        ValueError: the folder holds no Parquet file.
    """
    return folder_files(table) if table.is_dir() else (table,)


def read_columns(table: Path, columns: Mapping[str, str]) -> Iterator[Piece]:
    """Read some of a table's columns under new names, a bounded run of rows at a time.

    Args:
        table: a file, whose name's ending says what it is, or a folder of Parquet files.
        columns: the new name of each column wanted -> its name in the file. A new name that
            ends in `_id` asks for exact values: a Parquet column of floats is refused.

    Raises:
        ValueError: a column is absent (of JSONL: from all lines), a file is damaged as a whole, or
            a folder's files differ.
    """
    if table.is_dir():
        return folder_pieces(table, columns)
    match table_kind(table):
        case "parquet":
            return parquet_pieces(table, columns)
        case "jsonl":
            return json_pieces(table, columns, every_column=True)
        case "csv":
            return delimited_pieces(table, columns, CSV)
        case "tsv":
            return delimited_pieces(table, columns, TSV)


def column_names(table: Path) -> list[str]:
    """The names of a table's columns; of JSONL, those in its first lines.

    Raises:
        ValueError: the name's ending is unknown, or the file is damaged as a whole.
    """
    if table.is_dir():
        return list(parquet_schema(folder_files(table)[0]))
    match table_kind(table):
        case "parquet":
            return list(parquet_schema(table))
        case "jsonl":
            return list(dict.fromkeys(name for row in first_objects(table) for name in row))
        case "csv":
            lines = first_lines(table, 1)
            return [name for record in csv_records([1], lines, None) for name in record.fields]
        case "tsv":
            return [name for line in first_lines(table, 1) for name in line.split("\t")]
