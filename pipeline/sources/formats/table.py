"""The `table` format: one interaction a row and, in a second table, one item a row.

Parquet, CSV, TSV or JSONL, by the file's name (.csv, .tsv, .jsonl, .ndjson, .parquet; text files
may be .gz); a column map says which column is what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.paths import resolve
from pipeline.sources.column_map import ColumnMap, guessed_events, guessed_items, guessed_time
from pipeline.sources.columns import column_names, read_columns, table_kind
from pipeline.sources.events import event_parts, item_parts, text_columns
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.options import MinRating, SourceOptions, existing_file
from pipeline.sources.tables import RawTables


class TableConfig(SourceOptions):
    """Interactions and items as tables."""

    format: Literal["table"] = Field("table", description="this format's name")
    interactions: str = Field(
        description="file of interactions (.parquet, .csv, .tsv, .jsonl; text also .gz): absolute, "
        "or relative to the data root (HYDRAREC_DATA)"
    )
    items: str | None = Field(
        None, description="file of items, as above; null: the items have no texts"
    )
    columns: ColumnMap = Field(
        default_factory=lambda: ColumnMap.model_validate({}), description="which column is what"
    )
    min_rating: MinRating = None

    @field_validator("interactions", "items")
    @classmethod
    def _kind_is_known(cls, value: str | None) -> str | None:
        if value is not None:
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

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The interactions and, if there is one, the items table, absolute."""
        names = (self.interactions,) if self.items is None else (self.interactions, self.items)
        return tuple(resolve(name, data_root) for name in names)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"table {Path(self.interactions).name}"


def read_table(config: TableConfig, data_root: Path) -> RawTables:
    """Read a table of interactions and, if there is one, of items.

    Raises:
        ValueError: a file is absent; while reading, a column is absent or a file damaged as a
            whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    columns = config.columns
    events = read_columns(files[0], columns.event_columns(config.min_rating))
    texts = text_columns(columns.text)
    own = {"item_id": columns.items_item or columns.item}
    return RawTables(
        order="sequence" if columns.timestamp is None else "time",
        interactions=event_parts(events, columns.unit, min_rating=config.min_rating),
        items=item_parts(read_columns(files[1], own | texts), list(texts)) if files[1:] else (),
    )


def _recognise(sight: Sight) -> Guess | None:
    tables = [file for file in sight.files() if _is_table(file)]
    if sight.path.is_dir() and len(tables) > 2:
        return None
    for file in tables:
        names = column_names(file)
        columns = guessed_events(names, time_example(file, guessed_time(names)))
        if columns is None:
            continue
        fields: dict[str, Any] = {"interactions": str(file)}
        items = _items_beside(file, columns.get("item", "item_id"), tables)
        if items is not None:
            fields["items"] = str(items[0])
            columns |= items[1]
        if columns:
            fields["columns"] = columns
        return Guess(fields, f"{file.name} has columns with a user's and an item's id")
    return None


def _items_beside(file: Path, item: str, tables: list[Path]) -> tuple[Path, dict[str, Any]] | None:
    for other in tables:
        if other != file and (found := guessed_items(column_names(other), item)):
            defaults = {"items_item": None, "text": ("title",)}
            return other, {name: v for name, v in found.items() if v != defaults[name]}
    return None


def _is_table(file: Path) -> bool:
    try:
        table_kind(file)
    except ValueError:
        return False
    return True


def time_example(file: Path, column: str | None) -> str | None:
    """The first value of a column as text, for a guess at its unit."""
    if column is None:
        return None
    for piece in read_columns(file, {"timestamp": column}):
        rows = piece.slow().rows["timestamp"].drop_nulls()
        if "timestamp" not in piece.in_seconds and len(rows):
            return str(rows[0])
        return None
    return None


FORMAT = Format(
    config=TableConfig,
    read=read_table,
    summary="a .csv, .tsv, .jsonl or .parquet file with columns user, item, time",
    recognise=_recognise,
    is_general=True,
)
