"""Two tables whose columns a config names, whatever they are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.sources.column_map import ColumnMap, guessed_events, guessed_items, guessed_time
from pipeline.sources.events import event_parts, item_parts, text_columns
from pipeline.sources.pieces import Piece
from pipeline.sources.tables import RawTables

# Takes the new name of each column wanted -> its name in the table.
ReadColumns = Callable[[Mapping[str, str]], Iterator[Piece]]


def mapped_tables(
    columns: ColumnMap,
    min_rating: float | None,
    interactions: ReadColumns,
    items: ReadColumns | None = None,
) -> RawTables:
    """Interactions and, if there is a second table, items.

    Args:
        columns: which column is what.
        min_rating: leave out rows rated lower; None: no row is left out.
        interactions: reads some columns of the one table.
        items: of the other; None: there is none.
    """
    events = interactions(columns.event_columns(min_rating))
    texts = text_columns(columns.text)
    own = {"item_id": columns.items_item or columns.item}
    return RawTables(
        order="sequence" if columns.timestamp is None else "time",
        interactions=event_parts(events, columns.unit, min_rating=min_rating),
        items=() if items is None else item_parts(items(own | texts), list(texts)),
    )


@dataclass(frozen=True)
class Candidate:
    """What may be a table of interactions or of items.

    where: how a config names it.
    names: of its columns.
    read: reads some of them.
    """

    where: Any
    names: Sequence[str]
    read: ReadColumns


def guessed_tables(candidates: Sequence[Candidate]) -> dict[str, Any] | None:
    """The fields `interactions`, `items` and `columns` of a config; None without interactions.

    The first that has columns with a user's and an item's id is taken for the interactions, and
    the first other one with an item's id and a text for the items.
    """
    for events in candidates:
        columns = guessed_events(events.names, time_example(events.names, events.read))
        if columns is None:
            continue
        fields: dict[str, Any] = {"interactions": events.where}
        for other in candidates:
            found = guessed_items(other.names, columns.get("item", "item_id"))
            if other is not events and found is not None:
                fields["items"] = other.where
                columns |= found
                break
        return fields | ({"columns": columns} if columns else {})
    return None


def time_example(names: Sequence[str], read: ReadColumns) -> str | None:
    """The first value in the column that seems to hold the time, for a guess at its unit.

    Args:
        names: of the table's columns.
        read: reads some of them.

    Returns:
        None where there is no such column or value, or the file says the unit itself.
    """
    time = guessed_time(names)
    if time is None:
        return None
    for piece in read({"timestamp": time}):
        rows = piece.slow().rows["timestamp"].drop_nulls()
        if "timestamp" not in piece.in_seconds and len(rows):
            return str(rows[0])
        return None
    return None
