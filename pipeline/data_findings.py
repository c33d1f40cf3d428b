"""What is in somebody's data, counted a part at a time: ids are held, events are not."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.coding import Coding
from pipeline.sources.tables import Order, Part, RawTables, RejectedRow

_EXAMPLES = 3
_REFUSED_SHOWN = 5
_ONE_YEAR = 365 * 86_400


def findings(raw: RawTables) -> list[str]:
    """What is in one domain, in lines of at most 80 characters but for texts of rows.

    Args:
        raw: its tables; all parts are drawn.

    Raises:
        ValueError: a file is damaged as a whole.
    """
    counts = _Counts()
    for part in raw.interactions:
        counts.take_events(part)
    for part in raw.items:
        counts.take_items(part)
    return counts.lines(raw.order)


class _Counts:
    """What the parts drawn so far hold."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).timestamp()
        self._users, self._items = Coding(), Coding()
        self._with_text: NDArray[np.bool_] | None = None  # by the code of an item of an event
        self._rows = self._events = self._left_out = self._n_refused = 0
        self._times: tuple[int, int] | None = None
        self._n_future = 0
        self._reasons: Counter[str] = Counter()
        self._refused: list[RejectedRow] = []
        self._examples: list[tuple[str, str]] = []

    def take_events(self, part: Part) -> None:
        """Count interactions."""
        self._take(part)
        rows = part.rows
        self._events += rows.height
        self._users.codes(rows["user_id"])
        self._items.codes(rows["item_id"])
        if rows.height:
            times = rows["timestamp"].to_numpy()
            spans = (*(self._times or ()), int(times.min()), int(times.max()))
            self._times = min(spans), max(spans)
            self._n_future += int((times > self._now).sum())

    def take_items(self, part: Part) -> None:
        """Count items; all interactions were counted before."""
        if self._with_text is None:
            self._with_text = np.zeros(len(self._items), dtype=bool)
        self._take(part)
        rows = part.rows.filter(pl.col("text").fill_null("").str.strip_chars() != "")
        codes = self._items.codes(rows["item_id"])
        self._with_text[codes[codes < len(self._with_text)]] = True
        missing = _EXAMPLES - len(self._examples)
        self._examples += rows.head(missing).select("item_id", "text").rows()

    def lines(self, order: Order) -> list[str]:
        """The lines to print."""
        known = self._with_text
        bought = len(self._items) if known is None else len(known)
        n_known = 0 if known is None else int(known.sum())
        return [
            f"rows read      {self._rows:,}",
            f"interactions   {self._events:,}",
            f"users          {len(self._users):,}",
            f"items          {bought:,}",
            f"times          {self._time_range(order)}",
            *(self._odd_times() if order == "time" else ()),
            f"texts          {n_known:,} of {bought:,} items that somebody had have one",
            *self._refusals(),
            *([f"left out       {self._left_out:,} rated too low"] if self._left_out else []),
            *(f"  {item}: {text[:60]}" for item, text in self._examples),
        ]

    def _take(self, part: Part) -> None:
        self._rows += part.rows_read
        self._left_out += part.left_out
        self._n_refused += len(part.rejected)
        self._reasons.update(row.reason for row in part.rejected)
        self._refused += part.rejected[: _REFUSED_SHOWN - len(self._refused)]

    def _time_range(self, order: Order) -> str:
        if order == "sequence":
            return "none: a user's events stand in order"
        if self._times is None:
            return "none"
        first, last = (datetime.fromtimestamp(time, UTC) for time in self._times)
        return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"

    def _odd_times(self) -> list[str]:
        """What a run accepts, and what is yet seldom meant."""
        lines = []
        if self._times is not None and self._times[0] >= 0 and self._times[1] < _ONE_YEAR:
            lines.append("  all lie in 1970: is their unit right?")
        if self._n_future:
            lines.append(f"  {self._n_future:,} lie in the future: is their unit right?")
        return lines

    def _refusals(self) -> list[str]:
        lines = [f"refused        {self._n_refused:,}"]
        lines += [f"  {count:,} x {reason}" for reason, count in self._reasons.most_common()]
        lines += [f"  {row.file.name}:{row.line}: {row.row[:50]!r}" for row in self._refused]
        if self._n_refused:
            lines.append(
                f"  a run stops: mend them, or set cleaning: {{max_bad_rows: {self._n_refused}}}"
            )
        return lines
