"""The `table` format: one interaction a row and, in a second table, one item a row.

Parquet, CSV, TSV or JSONL, by the file's name (.csv, .tsv, .jsonl, .ndjson, .parquet; text files
may be .gz), or a folder of Parquet files; a column map says which column is what.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.sources.column_map import ColumnMap
from pipeline.sources.columns import (
    column_names,
    read_columns,
    table_files,
    table_kind,
)
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.mapped_tables import Candidate, guessed_tables, mapped_tables
from pipeline.sources.options import MinRating, SourceOptions, existing_file, given_paths
from pipeline.sources.parquet_folders import is_one_table, is_unfinished, parquet_files
from pipeline.sources.tables import RawTables


class TableConfig(SourceOptions):
    """Interactions and items as tables."""

    format: Literal["table"] = Field("table", description="this format's name")
    interactions: str = Field(
        description="file of interactions (.parquet, .csv, .tsv, .jsonl; text also .gz), or a "
        "folder of .parquet files: absolute, or relative to the data root (HYDRAREC_DATA)"
    )
    items: str | None = Field(None, description="items, as above; null: the items have no texts")
    columns: ColumnMap = Field(
        default_factory=lambda: ColumnMap.model_validate({}), description="which column is what"
    )
    min_rating: MinRating = None

    @field_validator("interactions", "items")
    @classmethod
    def _kind_is_known(cls, value: str | None) -> str | None:
        # Without an ending it can only be a folder, and with a slash at its end it must be one.
        if value is not None and Path(value).suffix and not value.endswith("/"):
            table_kind(Path(value))
        return value

    @model_validator(mode="after")
    def _text_needs_a_column(self) -> TableConfig:
        if self.items is not None and not self.columns.text:
            raise ValueError(
                "columns.text is empty although `items` names a file: list the columns that make "
                "an item's text, or set `items: null`"
            )
        return self

    def tables(self, data_root: Path) -> tuple[Path, ...]:
        """The interactions and, if there is one, the items table, each a file or a folder."""
        return given_paths(data_root, self.interactions, self.items)

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The files of both tables, absolute."""
        return tuple(file for table in self.tables(data_root) for file in table_files(table))

    def describe(self) -> str:
        """The format and the file's name."""
        return f"table {Path(self.interactions).name}"


def read_table(config: TableConfig, data_root: Path) -> RawTables:
    """Read a table of interactions and, if there is one, of items.

    Raises:
        ValueError: a file is absent; while reading, a column is absent or a file damaged as a
            whole.
    """
    for file in config.files(data_root):
        existing_file(file, config.describe())
    interactions, *items = (partial(read_columns, table) for table in config.tables(data_root))
    return mapped_tables(config.columns, config.min_rating, interactions, *items)


def _recognise(sight: Sight) -> Guess | None:
    tables = _tables(sight)
    if sight.path.is_dir() and len(tables) > 2:
        return None
    fields = guessed_tables(
        [
            Candidate(str(table), column_names(table), partial(read_columns, table))
            for table in tables
        ]
    )
    if fields is None:
        return None
    name = Path(fields["interactions"]).name
    return Guess(fields, f"{name} has columns with a user's and an item's id")


def _tables(sight: Sight) -> list[Path]:
    """What could be a table: files, folders of Parquet files, and a folder of such folders."""
    own = _tables_in(sight.path) if sight.path.is_dir() else [sight.path]
    return [table for table in (*own, *sight.others) if table.is_dir() or _is_table(table)]


def _tables_in(folder: Path) -> list[Path]:
    below = sorted(path for path in folder.iterdir() if not is_unfinished(path.name))
    files = [path for path in below if path.is_file() and _is_table(path)]
    folders = [path for path in below if path.is_dir() and parquet_files(path)]
    # `date=2024-01-01`, as Hive writes it: a part of one table.
    if not files and all("=" in path.name for path in folders):
        return [folder] if folders else []
    if len(files) > 1 and {path.suffix for path in files} == {".parquet"}:
        return [folder] if is_one_table(tuple(files)) else files
    return files or folders


def _is_table(file: Path) -> bool:
    try:
        table_kind(file)
    except ValueError:
        return False
    return True


FORMAT = Format(
    config=TableConfig,
    read=read_table,
    summary="a .csv, .tsv, .jsonl or .parquet file, or a folder of .parquet files",
    recognise=_recognise,
    is_general=True,
)
