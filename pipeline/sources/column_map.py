"""Which column of a table holds what: said in a config, or guessed from the names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.sources.times import TimeUnit

# Names that people give to columns, the surest first; compared in lower case without `_`.
_USERS = ("userid", "user", "reviewerid", "username", "customerid", "visitorid", "uid")
_ITEMS = ("itemid", "item", "parentasin", "movieid", "productid", "asin", "articleid", "iid")
_TIMES = ("timestamp", "time", "unixreviewtime", "datetime", "date", "eventtime", "ts")
_TEXTS = ("title", "name", "itemname", "productname", "movietitle", "text", "description")
_RATINGS = ("rating", "overall", "stars", "score")


class ColumnMap(BaseModel):
    """Which column holds what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = Field("user_id", description="column of the interactions with the user's id")
    item: str = Field("item_id", description="column of the interactions with the item's id")
    timestamp: str | None = Field(
        "timestamp",
        description="column of the interactions with the time; null: a user's rows stand in "
        "order and have no times (such a domain never interleaves with another)",
    )
    timestamp_unit: TimeUnit = Field(
        "s",
        description="unit of the times: unix seconds, unix milliseconds, or ISO 8601 text (UTC "
        "where it names no zone); Parquet's own time types need none",
    )
    rating: str = Field(
        "rating", description="column of the interactions with the rating; read for min_rating"
    )
    items_item: str | None = Field(
        None, description="column of the items table with the item's id; null: as in `item`"
    )
    text: tuple[str, ...] = Field(
        ("title",), description="columns of the items table that make an item's text, in order"
    )

    def event_columns(self, min_rating: float | None) -> dict[str, str]:
        """The columns of the interactions to read: new name -> name in the file."""
        wanted = {"user_id": self.user, "item_id": self.item}
        if self.timestamp is not None:
            wanted["timestamp"] = self.timestamp
        return wanted if min_rating is None else wanted | {"rating": self.rating}

    @property
    def unit(self) -> TimeUnit | None:
        """The unit of the times; None: there are none."""
        return None if self.timestamp is None else self.timestamp_unit


def guessed_events(names: Sequence[str], time_example: str | None) -> dict[str, Any] | None:
    """The fields of a ColumnMap that differ from its defaults; None without user and item.

    Args:
        names: of the interactions' columns.
        time_example: a value of the time column, once `guessed_time` has told it.
    """
    user, item = _first(names, _USERS), _first(names, _ITEMS)
    if user is None or item is None:
        return None
    time = guessed_time(names)
    fields: dict[str, Any] = {"user": user, "item": item, "timestamp": time}
    if time is not None and time_example is not None:
        fields["timestamp_unit"] = guessed_unit(time_example)
    if rating := _first(names, _RATINGS):
        fields["rating"] = rating
    return _differing(fields)


def guessed_items(names: Sequence[str], item: str) -> dict[str, Any] | None:
    """The fields of a ColumnMap for an items table that differ from its defaults.

    Args:
        names: of the table's columns.
        item: name of the item's column in the interactions.

    Returns:
        None without an id and a text.
    """
    own = item if item in names else _first(names, (*_ITEMS, "id"))
    texts = [found for known in _TEXTS if (found := _first(names, (known,)))]
    if own is None or not texts or _first(names, _USERS):
        return None
    return _differing({"items_item": None if own == item else own, "text": (texts[0],)})


def guessed_time(names: Sequence[str]) -> str | None:
    """The column that seems to hold the time."""
    return _first(names, _TIMES)


def guessed_unit(example: str) -> TimeUnit:
    """The unit of a time such as 1405296000, 1405296000123 or 2014-07-14."""
    try:
        value = float(example)
    except ValueError:
        return "iso"
    # 1e11 seconds are the year 5138, 1e11 milliseconds 1973.
    return "ms" if abs(value) > 1e11 else "s"


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain = {name.lower().replace("_", "").replace(" ", ""): name for name in reversed(names)}
    return next((plain[name] for name in known if name in plain), None)


def _differing(fields: dict[str, Any]) -> dict[str, Any]:
    defaults = {name: field.default for name, field in ColumnMap.model_fields.items()}
    return {name: value for name, value in fields.items() if value != defaults[name]}
