"""CSV records out of lines, so that one stray quote costs its own line and not all that follow."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import NamedTuple

OTHER_COUNT = "has more or fewer fields than the header"
_NOT_CLOSED = "has a quote that is not closed"
_NOT_CSV = "is not valid CSV: a quote within a field must be doubled, and the field quoted"
# A record of more lines than this is taken for one with a stray quote.
_MOST_LINES = 200


class CsvRecord(NamedTuple):
    """One record: its first line's number, how many lines, its text, fields, what is wrong."""

    line: int
    lines: int
    text: str
    fields: tuple[str, ...]
    fault: str | None


def csv_records(
    numbers: Sequence[int], texts: Sequence[str], width: int | None, *, more_follow: bool = False
) -> Iterator[CsvRecord]:
    """Records in order.

    A quoted field may span lines. A record that is not valid gives a fault for its first line
    alone, and reading goes on with the next line.

    Args:
        numbers: the 1-based number of each line.
        texts: the lines without their ends.
        width: how many fields each must have; None: any number.
        more_follow: these are not all lines: stop before a record that may go on after them.
    """
    at = 0
    while at < len(texts):
        end = at + 1 if texts[at].count('"') % 2 == 0 else _record_end(texts, at)
        if end is None and more_follow and len(texts) - at < _MOST_LINES:
            return
        text = texts[at] if end is None else "\n".join(texts[at:end])
        fields, fault = ((), _NOT_CLOSED) if end is None else _parsed(text, width)
        if fault is not None:
            end, text = at + 1, texts[at]
        end = end or at + 1
        yield CsvRecord(numbers[at], end - at, text, fields, fault)
        at = end


def _record_end(texts: Sequence[str], start: int) -> int | None:
    """The line after the record's last: where the number of quotes is even again."""
    is_open = False
    for at in range(start, min(len(texts), start + _MOST_LINES)):
        is_open ^= texts[at].count('"') % 2 == 1
        if not is_open:
            return at + 1
    return None


def _parsed(text: str, width: int | None) -> tuple[tuple[str, ...], str | None]:
    if '"' in text:
        try:
            # One text in, so that line ends within quotes belong to it: one record out, or none.
            (record,) = csv.reader([text], strict=True)
        except (csv.Error, ValueError):
            return (), _NOT_CSV
        fields = tuple(record)
    else:
        # As where no line of a block has quotes: the csv module takes a lone carriage return for
        # a line's end, and a row must not depend on its neighbours.
        fields = tuple(text.split(","))
    return fields, OTHER_COUNT if width is not None and len(fields) != width else None
