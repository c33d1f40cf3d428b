"""Files that are wrong as a whole: the run stops however many bad rows are allowed."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipeline.faults.tables import EVENTS, write_rows

PLAIN = ("csv", "tsv", "jsonl")
_NO_EVENTS = r"holds no interactions: check that it is the right file"


@dataclass(frozen=True)
class BadFile:
    """A way to break a table's file, and what is told.

    harm: is given the file, and the bytes of a good one.
    strict: what is told where no bad row is allowed, if that is another thing.
    """

    name: str
    kind: str
    harm: Callable = field(repr=False)
    told: str
    table: str = "events"
    strict: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


def _each(name, kinds, harm, told, table="events", strict=None):
    return [BadFile(name, kind, harm, told, table, strict) for kind in kinds]


def _bytes(change):
    """Harm that changes the file's bytes."""
    return lambda file, data: file.write_bytes(change(data))


def _half(data):
    return data[: len(data) // 2]


def _rename(old, new):
    return _bytes(lambda data: data.replace(old, new))


def _parquet(**columns):
    """Harm that writes another Parquet table in its place."""
    return lambda file, data: pq.write_table(pa.table(columns), file)


def _flip_a_page(file, data):
    """One bit of a page that has a checksum."""
    table = pq.read_table(file)
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, file, write_page_checksum=True, **plain)
    written = bytearray(file.read_bytes())
    place = written.index(b"u1")
    written[place] ^= 1
    file.write_bytes(written)


def _no_rows(file, data):
    write_rows(file, ("user_id", "item_id", "timestamp"), [])


def _all_in_milliseconds(file, data):
    for _, _, time in EVENTS:
        data = data.replace(str(time).encode(), f"{time}000".encode())
    file.write_bytes(data)


BAD_FILES = [
    # broken off, damaged, in another encoding
    *_each(
        "absent", ("csv", "jsonl", "parquet", "sequences"), lambda f, d: f.unlink(), "is absent"
    ),
    *_each("a folder", ("csv", "jsonl"), lambda f, d: (f.unlink(), f.mkdir()), "holds no .parquet"),
    *_each("gzip broken off", ("sequences",), _bytes(_half), r":\d+: the gzip data are damaged"),
    *_each("no gzip", ("sequences",), _bytes(gzip.decompress), "the gzip data are damaged"),
    *_each("broken off", ("parquet",), _bytes(_half), "is not a readable Parquet file"),
    *_each("a bit flipped", ("parquet",), _flip_a_page, "is not a readable Parquet file .*CRC"),
    *_each("other bytes", ("parquet",), _bytes(lambda d: b"PAR1" + d[4:80]), "is not a readable"),
    *_each(
        "UTF-16",
        PLAIN,
        _bytes(lambda data: data.decode().encode("utf-16")),
        ":1: the file is UTF-16, expected UTF-8: convert it",
    ),
    # nothing in it
    *_each("empty", ("csv", "tsv"), _bytes(lambda d: b""), "is empty: expected a header line"),
    *_each("empty", ("jsonl",), _bytes(lambda d: b""), "holds no object: expected a JSON object"),
    *_each("empty", ("parquet",), _bytes(lambda d: b""), "is not a readable Parquet file"),
    *_each("empty", ("sequences",), _bytes(lambda d: gzip.compress(b"")), _NO_EVENTS),
    *_each(
        "blank lines", ("csv", "tsv"), _bytes(lambda d: b"\n \n"), "is empty: expected a header"
    ),
    *_each("header only", ("csv", "tsv", "parquet"), _no_rows, _NO_EVENTS),
    # columns
    *_each(
        "a column misnamed", ("csv", "tsv"), _rename(b"item_id", b"item"), "no column 'item_id'"
    ),
    *_each(
        "a column misnamed",
        ("jsonl",),
        _rename(b"user_id", b"user"),
        "has no column 'user_id': it has 'user', 'item_id', 'timestamp'",
        strict="5 of the first 5 rows cannot be read.*events.jsonl:1: the user id is empty",
    ),
    *_each(
        "a text column misnamed",
        ("jsonl",),
        _rename(b"title", b"tilte"),
        "has no column 'title': it has 'item_id', 'tilte'",
        "items",
    ),
    *_each(
        "a column misnamed",
        ("parquet",),
        _parquet(user=["u"], item_id=["a"], timestamp=[1]),
        "no column 'user_id': it has 'user'",
    ),
    *_each("a column twice", ("csv",), _rename(b"item_id", b"user_id,item_id"), "two columns"),
    *_each(
        "header not UTF-8",
        ("csv", "tsv"),
        _rename(b"user_id", b"user_id\xff"),
        ":1: the header is not valid UTF-8, expected the columns' names in UTF-8",
    ),
    *_each("header not closed", ("csv",), _rename(b"user_id", b'"user_id'), "not closed"),
    *_each(
        "header of 20 MB",
        ("csv", "tsv"),
        _rename(b"user_id", b"u" * 20_000_000),
        ":1: the header is a line of more than 16 MiB",
    ),
    *_each(
        "ids as floats",
        ("parquet",),
        _parquet(user_id=[7.0], item_id=["a"], timestamp=[1]),
        r"the ids in the column 'user_id' are Float64, so that 7 reads 7\.0",
    ),
    *_each(
        "ids as yes and no",
        ("parquet",),
        _parquet(user_id=[True], item_id=["a"], timestamp=[1]),
        "the column 'user_id' is Boolean, expected text",
    ),
    # every row is bad
    *_each(
        "all in milliseconds",
        ("csv", "tsv", "jsonl"),
        _all_in_milliseconds,
        r"no interaction of table events.* could be read \(5 x the time lies outside the years",
        strict="5 of the first 5 rows cannot be read.*:[12]: the time lies outside the years",
    ),
]
