"""The `recbole` format: RecBole's atomic files NAME.inter and NAME.item, tab separated.

The header gives each column's name and type, as in `user_id:token`, `timestamp:float`,
`title:token_seq`.
"""

from __future__ import annotations

from collections.abc import Iterator
from os.path import splitext
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.blocks import first_lines
from pipeline.sources.delimited import TSV, delimited_pieces
from pipeline.sources.events import event_parts, item_parts, rating_column, text_columns
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.options import MinRating, SourceOptions, existing_file
from pipeline.sources.tables import Part, RawTables
from pipeline.sources.times import TimeUnit
from pipeline.storage.local_copy import on_this_machine


class RecBoleConfig(SourceOptions):
    """A data set in RecBole's atomic files."""

    format: Literal["recbole"] = Field("recbole", description="this format's name")
    path: str = Field(
        description="the NAME.inter file; NAME.item beside it is read if it is there: absolute, "
        "or relative to the data root (HYDRAREC_DATA)"
    )
    user: str = Field("user_id", description="field of the interactions with the user's id")
    item: str = Field("item_id", description="field of both files with the item's id")
    timestamp: str | None = Field(
        "timestamp", description="field with the time in unix seconds; null: rows stand in order"
    )
    rating: str = Field("rating", description="field with the rating; read for min_rating")
    text: tuple[str, ...] | None = Field(
        None, description="fields of NAME.item that make an item's text; null: all token_seq fields"
    )
    min_rating: MinRating = None

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """NAME.inter and, if it is there, NAME.item, absolute."""
        events = on_this_machine(self.path, data_root)
        items = on_this_machine(f"{splitext(self.path)[0]}.item", data_root)
        return (events, items) if items.is_file() else (events,)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"recbole {Path(self.path).name}"


def read_recbole(config: RecBoleConfig, data_root: Path) -> RawTables:
    """Read atomic files.

    Raises:
        ValueError: a file or a field is absent; while reading, a file is damaged as a whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    wanted = {"user_id": config.user, "item_id": config.item}
    if config.timestamp is not None:
        wanted["timestamp"] = config.timestamp
    wanted |= rating_column(config.rating, config.min_rating)
    events = delimited_pieces(files[0], _typed(fields_of(files[0]), wanted), TSV)
    unit: TimeUnit | None = None if config.timestamp is None else "s"
    return RawTables(
        order="sequence" if unit is None else "time",
        interactions=event_parts(events, unit, min_rating=config.min_rating),
        items=_items(files[1], config) if files[1:] else (),
    )


def _items(file: Path, config: RecBoleConfig) -> Iterator[Part]:
    types = fields_of(file)
    chosen = config.text or tuple(name for name, kind in types.items() if kind == "token_seq")
    texts = text_columns(chosen)
    wanted = _typed(types, {"item_id": config.item} | texts)
    return item_parts(delimited_pieces(file, wanted, TSV), list(texts))


def fields_of(file: Path) -> dict[str, str]:
    """The type of each field of an atomic file, by its name.

    Raises:
        ValueError: the header does not say types.
    """
    header = next(iter(first_lines(file, 1)), "").rstrip("\r\n").split("\t")
    parts = [column.rpartition(":") for column in header]
    if not all(name for name, _, _ in parts):
        raise ValueError(
            f"{file}:1: the header is {header!r}, expected names with types such as user_id:token"
        )
    return {name: kind for name, _, kind in parts}


def _typed(types: dict[str, str], wanted: dict[str, str]) -> dict[str, str]:
    """The wanted fields by their names in the header, with types; absent ones as they are."""
    return {new: f"{name}:{types[name]}" if name in types else name for new, name in wanted.items()}


def _recognise(sight: Sight) -> Guess | None:
    found = [file for file in sight.files() if file.suffix == ".inter"]
    if len(found) != 1:
        return None
    types = fields_of(found[0])
    fields: dict[str, object] = {"path": str(found[0])}
    if "timestamp" not in types:
        fields["timestamp"] = None
    return Guess(fields, f"{found[0].name} is an atomic file with the fields {', '.join(types)}")


FORMAT = Format(
    config=RecBoleConfig,
    read=read_recbole,
    summary="RecBole's atomic files NAME.inter and NAME.item",
    recognise=_recognise,
)
