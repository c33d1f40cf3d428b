"""One small shop in every kind of file, with a row of one's own in its midst."""

import csv
import gzip
import io
import json
from pathlib import Path

import polars as pl

from pipeline.domains import DomainConfig, build_domain

KINDS = ("csv", "tsv", "jsonl", "parquet", "sequences")
EVENTS = (
    ("u1", "a", 1405296000),
    ("u1", "b", 1405296001),
    ("u2", "a", 1405296002),
    ("u2", "c", 1405296003),
    ("u3", "b", 1405296004),
)
TITLES = (("a", "Oak desk"), ("b", "Pine shelf"), ("c", "Ash stool"))
COLUMNS = {"events": ("user_id", "item_id", "timestamp"), "items": ("item_id", "title")}


def file_of(kind, table):
    """What the file of a table is called."""
    if kind == "sequences":
        return {"events": "sequences.tsv.gz", "items": "items.tsv.gz"}[table]
    return f"{table}.{kind}"


def line_of_the_extra(kind):
    """Where a row stands that was put in after the first: a line, in Parquet a row."""
    return 3 if kind in ("csv", "tsv") else 2


def source_of(kind, **more):
    """The fields of the source's config."""
    if kind == "sequences":
        return {"format": "sequences", "path": ".", **more}
    return {
        "format": "table",
        "interactions": file_of(kind, "events"),
        "items": file_of(kind, "items"),
        **more,
    }


def row_of(kind, table, values):
    """A row as its file holds it: a line without its end, in Parquet the values."""
    match kind:
        case "csv":
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow(values)
            return text.getvalue().removesuffix("\n").encode(errors="surrogateescape")
        case "tsv" | "sequences":
            every = (*values, "") if (kind, table) == ("sequences", "items") else values
            return "\t".join(map(str, every)).encode(errors="surrogateescape")
        case "jsonl":
            return json.dumps(dict(zip(COLUMNS[table], values, strict=True))).encode()
        case _:
            return tuple(values)


def write(folder, kind, events=EVENTS, titles=TITLES, extra=None):
    """Write both tables.

    Args:
        folder: where.
        kind: of file.
        events: rows.
        titles: rows.
        extra: by table, a row as `row_of` gives it, to stand after the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    events = histories(events) if kind == "sequences" else events
    for table, given in (("events", events), ("items", titles)):
        rows = [row_of(kind, table, values) for values in given]
        if extra is not None and table in extra:
            rows.insert(1, extra[table])
        write_rows(folder / file_of(kind, table), COLUMNS[table], rows)


def write_rows(path, columns, rows):
    """Write a table's rows as the name of the file says."""
    if path.suffix == ".parquet":
        types = {name: pl.Int64 if name == "timestamp" else pl.String for name in columns}
        pl.DataFrame(rows, schema=types, orient="row").write_parquet(path)
        return
    header = {".csv": b",", ".tsv": b"\t"}.get(path.suffix)
    names = [] if header is None else [header.join(name.encode() for name in columns)]
    data = b"".join(row + b"\n" for row in (*names, *rows))
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


def histories(events):
    """The rows of `sequences`: user, items, times."""
    rows = {}
    for user, item, time in events:
        items, times = rows.setdefault(user, ([], []))
        items.append(item)
        times.append(str(time))
    return [(user, " ".join(items), " ".join(times)) for user, (items, times) in rows.items()]


def domain_of(folder, kind, *, max_bad_rows=0, source=None, **cleaning):
    """The domain that the files of a folder give; quarantined rows lie in its folder `refused`."""
    config = DomainConfig.model_validate(
        {
            "name": "shop",
            "source": source or source_of(kind),
            "cleaning": {"max_bad_rows": max_bad_rows, **cleaning},
        }
    )
    return build_domain(config, folder, folder / "refused", folder / "work")


def quarantined(folder):
    """What was written of rows that were refused."""
    path = Path(folder) / "refused" / "shop.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
