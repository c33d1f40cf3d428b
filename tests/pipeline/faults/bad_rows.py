"""Rows that no table should hold, in every kind of file that can hold them.

Each costs itself alone where `max_bad_rows` allows it, and stops the run where it does not.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.pipeline.faults.tables import KINDS, row_of

TEXT_KINDS = ("csv", "tsv", "jsonl", "sequences")
MIB = 1 << 20
_NO_JSON = "is not a JSON object of texts and numbers"
_ID_EMPTY = {"sequences": "an item id (ids are separated by one space) is empty"}


@dataclass(frozen=True)
class BadRow:
    """One row, and the reason that is told.

    row: as the file holds it, or what makes it where it is large.
    """

    name: str
    kind: str
    row: Any = field(repr=False)
    reason: str
    table: str = "events"

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


def _values(name, values, reason, kinds=KINDS, others=()):
    """A row that every kind of file can hold, with a bad value; `others`: reasons of some kinds."""
    return [
        BadRow(name, kind, row_of(kind, "events", values), dict(others).get(kind, reason))
        for kind in kinds
    ]


def _in(name, rows, reason, table="events"):
    """Rows by kind, told alike."""
    return [BadRow(name, kind, row, reason, table) for kind, row in rows.items()]


BAD_ROWS = [
    # what breaks the form of a row
    *_in("malformed", {"csv": b"u9,a", "tsv": b"u9\ta"}, "more or fewer fields than the header"),
    *_in("malformed", {"sequences": b"u9\ta"}, "expected 3 fields: user_id, item_id, timestamp"),
    *_in("malformed", {"jsonl": b"u9,a,7"}, _NO_JSON),
    *_in("too many fields", {"csv": b"u9,a,7,8", "tsv": b"u9\ta\t7\t8"}, "more or fewer fields"),
    *_in("truncated", {"csv": b'u9,"a', "jsonl": b'{"user_id": "u9", "item_id": "a", "time'}, ""),
    *_in("truncated", {"sequences": b"u9\ta b\t7"}, "has not as many times as items"),
    *_in("a quote within", {"csv": b'u9,"a"b,7'}, "is not valid CSV"),
    *_in("no object", {"jsonl": b'["u9", "a", 7]'}, _NO_JSON),
    *_in("too deep", {"jsonl": b"[" * 100_000}, _NO_JSON),
    *_in("not UTF-8", {kind: b"u9\xff" for kind in TEXT_KINDS}, "is not valid UTF-8"),
    *_in(
        "half a surrogate pair", {kind: b"\xed\xa0\x80" for kind in TEXT_KINDS}, "not valid UTF-8"
    ),
    *_in(
        "half a surrogate pair, escaped",
        {"jsonl": rb'{"user_id": "\ud800", "item_id": "a", "timestamp": 7}'},
        _NO_JSON,
    ),
    *_in("NUL", {kind: b"u9\0\ta\t7" for kind in TEXT_KINDS}, "holds a NUL byte"),
    *_values(
        "NUL in an id", ("u9\0", "a", 7), "the user id holds a NUL byte", ("jsonl", "parquet")
    ),
    *_in("a line of 20 MB", {kind: lambda: b"x" * 20_000_000 for kind in TEXT_KINDS}, "16 MiB"),
    # ids
    *_in(
        "a field twice",
        {"jsonl": b'{"user_id": "u9", "user_id": "u8", "item_id": "a", "timestamp": 7}'},
        "has a field twice, with no telling which of the two counts",
    ),
    *_in(
        "an id that is no id",
        {"jsonl": b'{"user_id": ["u8", "u9"], "item_id": "a", "timestamp": 7}'},
        "has an id that is neither a text nor a whole number",
    ),
    *_in(
        "an id that became a float",
        {"jsonl": b'{"user_id": 7.0, "item_id": "a", "timestamp": 7}'},
        "has an id that is neither a text nor a whole number",
    ),
    *_values("no user", ("", "a", 7), "the user id is empty"),
    *_values("a blank user", (" ", "a", 7), "the user id is empty"),
    *_values("a user of separators", ("\x1f \x1c", "a", 7), "the user id is empty"),
    *_values("no item", ("u9", "", 7), "the item id is empty", others=_ID_EMPTY),
    *_values("no user at all", (None, "a", 7), "the user id is empty", ("jsonl", "parquet")),
    *_values("an id of a megabyte", ("u" * MIB, "a", 7), "the user id is longer than 1,000 bytes"),
    # times
    *_values(
        "milliseconds among seconds",
        ("u9", "a", 1405296000000),
        "the time lies outside the years 1900 to 2200: is its unit right?",
        others={"sequences": "a time is not in unix seconds (years 1900 to 2200)"},
    ),
    *_values(
        "before 1900",
        ("u9", "a", -9_999_999_999),
        "the time lies outside the years 1900 to 2200",
        others={"sequences": "a time is not in unix seconds (years 1900 to 2200)"},
    ),
    *_values(
        "no number",
        ("u9", "a", "soon"),
        "the time is not a number of unix seconds",
        ("csv", "tsv", "jsonl", "sequences"),
        others={"sequences": "a time is not a whole number"},
    ),
    *_values(
        "NaN as text",
        ("u9", "a", "NaN"),
        "the time is not a number of unix seconds",
        ("csv", "tsv", "jsonl", "sequences"),
        others={"sequences": "a time is not a whole number"},
    ),
    *_in(
        "NaN as a token",
        {"jsonl": b'{"user_id": "u9", "item_id": "a", "timestamp": NaN}'},
        _NO_JSON,
    ),
    *_in("infinity", {"jsonl": b'{"user_id": "u9", "item_id": "a", "timestamp": 1e999}'}, _NO_JSON),
    *_values(
        "no time",
        ("u9", "a", None),
        "the time is not a number of unix seconds",
        ("jsonl", "parquet"),
    ),
    # items
    *_in("no field", {"csv": b"d", "tsv": b"d"}, "more or fewer fields", "items"),
    *_in("no item id", {"csv": b",Lamp", "tsv": b"\tLamp"}, "the item id is empty", "items"),
    *_in("no item id", {"parquet": (None, "Lamp")}, "the item id is empty", "items"),
    *_in("no item id", {"sequences": b"\tLamp\t"}, "the item id is empty", "items"),
    *_in(
        "a text that is an object",
        {"jsonl": b'{"item_id": "a", "title": {"en": "Oak"}}'},
        _NO_JSON,
        "items",
    ),
    *_in("a text not UTF-8", {kind: b"a\xff" for kind in TEXT_KINDS}, "not valid UTF-8", "items"),
]
