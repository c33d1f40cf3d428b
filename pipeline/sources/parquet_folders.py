"""A folder of Parquet files that are one table, as Spark, Dask and others write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.sources.parquet_rows import parquet_pieces, parquet_schema
from pipeline.sources.pieces import Piece


def parquet_files(folder: Path) -> tuple[Path, ...]:
    """The Parquet files in a folder and the folders below it, in the order of their paths.

    What is not finished is passed over.
    """
    found = (path for path in folder.rglob("*.parquet") if path.is_file())
    finished = (path for path in found if not _has_unfinished(path.relative_to(folder)))
    return tuple(sorted(finished))


def is_unfinished(name: str) -> bool:
    """Whether a name begins with `.` or `_`: what is not data, or not finished, among its files.

    So the programs that write such folders name it: `_temporary`, `_SUCCESS`, `.part.crc`.
    """
    return name.startswith((".", "_"))


def folder_files(folder: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder that is a table.

    Raises:
        ValueError: there are none.
    """
    files = parquet_files(folder)
    if not files:
        raise ValueError(
            f"the folder {folder} holds no .parquet file: give a folder of Parquet files, or name "
            "the file that is the table"
        )
    return files


def folder_pieces(folder: Path, columns: Mapping[str, str]) -> Iterator[Piece]:
    """Read some columns of a folder's files, one file after another; as `parquet_pieces`.

    Raises:
        ValueError: there is no file, or one that has other columns than the first.
    """
    files = folder_files(folder)
    for file in files[1:]:
        _as_the_first(files[0], file)
    for file in files:
        yield from parquet_pieces(file, columns)


def is_one_table(files: tuple[Path, ...]) -> bool:
    """Whether all have the same columns."""
    return len({tuple(sorted(map(str, parquet_schema(file).items()))) for file in files}) == 1


def _has_unfinished(path: Path) -> bool:
    return any(map(is_unfinished, path.parts))


def _as_the_first(first: Path, other: Path) -> None:
    expected, got = parquet_schema(first), parquet_schema(other)
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            raise ValueError(
                f"{other} differs from {first.name} in the column {name!r}: "
                f"{got.get(name, 'absent')}, expected {expected.get(name, 'none')}; all files of a "
                "folder are one table: write it again with the same columns"
            )
