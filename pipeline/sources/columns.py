"""Named columns out of a CSV, TSV, JSONL or Parquet file, or a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pipeline.sources.blocks import first_lines
from pipeline.sources.csv_records import csv_records
from pipeline.sources.delimited import CSV, TSV, delimited_pieces
from pipeline.sources.json_lines import first_objects, json_pieces
from pipeline.sources.parquet_rows import parquet_names, parquet_pieces
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


def read_columns(file: Path, columns: Mapping[str, str]) -> Iterator[Piece]:
    """Read some of a file's columns under new names, a bounded run of rows at a time.

    Args:
        file: its name's ending says what it is.
        columns: the new name of each column wanted -> its name in the file. A new name that
            ends in `_id` asks for exact values: a Parquet column of floats is refused.

    Raises:
        ValueError: a column is absent, or the file is damaged as a whole.
    """
    match table_kind(file):
        case "parquet":
            return parquet_pieces(file, columns)
        case "jsonl":
            return json_pieces(file, columns)
        case "csv":
            return delimited_pieces(file, columns, CSV)
        case "tsv":
            return delimited_pieces(file, columns, TSV)


def column_names(file: Path) -> list[str]:
    """The names of a table's columns; of JSONL, those in its first lines.

    Raises:
        ValueError: the name's ending is unknown, or the file is damaged as a whole.
    """
    match table_kind(file):
        case "parquet":
            return parquet_names(file)
        case "jsonl":
            return list(dict.fromkeys(name for row in first_objects(file) for name in row))
        case "csv":
            lines = first_lines(file, 1)
            return [name for record in csv_records([1], lines, None) for name in record.fields]
        case "tsv":
            return [name for line in first_lines(file, 1) for name in line.split("\t")]


def parquet_files(folder: Path) -> tuple[Path, ...]:
    """The Parquet files in a folder and the folders below it, in the order of their paths."""
    return tuple(sorted(path for path in folder.rglob("*.parquet") if path.is_file()))
