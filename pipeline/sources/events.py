"""What every format asks of interactions and of items, whatever file they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import polars as pl

from pipeline.coding import Coding
from pipeline.sources.lines import HAS_NUL
from pipeline.sources.pieces import Piece, Rules, bounded
from pipeline.sources.tables import EARLIEST, LATEST, Part, joined_text
from pipeline.sources.times import TimeUnit, unix_seconds

_NO_RATING = (pl.col("stars").is_null(), "the rating is not a number")
# Nothing that names somebody is longer, and every id is held in memory.
_MOST_ID_BYTES = 1000
_NO_TIME = {
    "s": "the time is not a number of unix seconds",
    "ms": "the time is not a number of unix milliseconds",
    "iso": "the time is not an ISO 8601 date or time",
}
_STRANGE_TIME = "the time lies outside the years 1900 to 2200: is its unit right?"
# Unix seconds of the years 1992 to 2103, read as milliseconds, are days of January and February
# 1970, of which nobody has data: without this check they would be taken in silence.
_IN_SECONDS = pl.col("timestamp").is_between(700_000, 4_200_000)
_SECONDS_AS_MS = "the time is in unix seconds, not in milliseconds: set the unit to s"

# White space, and the separators of ASCII that Unicode does not count as such, make no id.
_OF_AN_ID = r"[^\s\x1c-\x1f]"

Checks = tuple[tuple[pl.Expr, str], ...]


def id_checks(id_: pl.Expr, what: str) -> Checks:
    """What is wrong with an id (String), and the reason; `what` is the id in words."""
    return (
        (~id_.fill_null("").str.contains(_OF_AN_ID), f"{what} is empty"),
        (id_.str.contains("\0", literal=True), f"{what} {HAS_NUL}"),
        (id_.str.len_bytes() > _MOST_ID_BYTES, f"{what} is longer than {_MOST_ID_BYTES:,} bytes"),
    )


def id_list_checks(name: str, what: str) -> Checks:
    """The same for a column that holds a list of ids a row: whether any is wrong."""
    ids = pl.col(name).list
    return tuple(
        (ids.eval(wrong).list.any(), reason) for wrong, reason in id_checks(pl.element(), what)
    )


def event_parts(
    pieces: Iterable[Piece], unit: TimeUnit | None, *, min_rating: float | None = None
) -> Iterator[Part]:
    """Checked interactions.

    Args:
        pieces: with user_id, item_id, `timestamp` if there is a unit, `rating` if there is a
            min_rating.
        unit: of the times; None: there are none, a user's rows stand in order.
        min_rating: leave out rows rated lower; None: no row is left out.
    """
    return bounded(_event_parts(pieces, unit, min_rating))


def item_parts(pieces: Iterable[Piece], text_columns: Sequence[str]) -> Iterator[Part]:
    """Checked items; their text is made of the text columns, in order.

    Args:
        pieces: with item_id and the text columns.
        text_columns: their names in the pieces.
    """
    checks = id_checks(pl.col("item_id"), "the item id")
    rules = Rules(lambda rows: rows.with_columns(joined_text(text_columns)), checks)
    for piece in pieces:
        part = rules.apply(piece)
        yield replace(part, rows=part.rows.select("item_id", "text"))


def rating_column(name: str, min_rating: float | None) -> dict[str, str]:
    """The rating among the columns to read, if somebody asks for it."""
    return {} if min_rating is None else {"rating": name}


def text_columns(names: Sequence[str]) -> dict[str, str]:
    """New names for the columns that make an item's text, which may stand for other things too."""
    return {f"text {place}": name for place, name in enumerate(names)}


def _event_parts(
    pieces: Iterable[Piece], unit: TimeUnit | None, min_rating: float | None
) -> Iterator[Part]:
    numbers = EventNumbers()
    for piece in pieces:
        given = "s" if unit and "timestamp" in piece.in_seconds else unit
        part = _rules(given, rated=min_rating is not None).apply(piece)
        rows = part.rows
        if min_rating is not None:
            rows = rows.filter(pl.col("stars") >= min_rating)
        rows = numbers.added(rows) if unit is None else rows
        rows = rows.select("user_id", "item_id", "timestamp")
        yield replace(part, rows=rows, left_out=part.rows.height - rows.height)


def _rules(unit: TimeUnit | None, *, rated: bool) -> Rules:
    def prepare(rows: pl.DataFrame) -> pl.DataFrame:
        if unit is not None:
            rows = rows.with_columns(unix_seconds(rows["timestamp"], unit))
        if rated:
            rows = rows.with_columns(pl.col("rating").cast(pl.Float64, strict=False).alias("stars"))
        return rows

    checks = [
        *id_checks(pl.col("user_id"), "the user id"),
        *id_checks(pl.col("item_id"), "the item id"),
    ]
    if unit is not None:
        time = pl.col("timestamp")
        checks += [
            (time.is_null(), _NO_TIME[unit]),
            (~time.is_between(EARLIEST, LATEST), _STRANGE_TIME),
        ]
    if unit == "ms":
        checks.append((_IN_SECONDS, _SECONDS_AS_MS))
    return Rules(prepare, (*checks, _NO_RATING) if rated else tuple(checks))


class EventNumbers:
    """Numbers events in the order in which they are shown, so that each user's stay in order."""

    def __init__(self) -> None:
        self._shown = 0

    def added(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with their event's number as `timestamp` Int64."""
        numbers = pl.int_range(self._shown, self._shown + pl.len(), dtype=pl.Int64)
        self._shown += rows.height
        return rows.with_columns(numbers.alias("timestamp"))


class SeenUsers:
    """Remembers which users have had their line, for files in which each may have only one."""

    def __init__(self) -> None:
        self._seen = Coding()

    def repeated(self, users: pl.Series) -> pl.Series:
        """Whether each user stood before, in these or in earlier ones; Boolean."""
        before = len(self._seen)
        earlier = pl.Series(self._seen.codes(users) < before)
        return earlier | ~users.is_first_distinct()
