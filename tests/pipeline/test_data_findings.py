"""What --check says of data that come in parts."""

import polars as pl

from pipeline.data_findings import findings
from pipeline.sources.tables import Part, RawTables, RejectedRow


def events(*rows, **facts):
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    types = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    return Part(table.cast(types), len(rows), **facts)


def items(*rows):
    return Part(pl.DataFrame(rows, schema=["item_id", "text"], orient="row"), len(rows))


def told(*parts, texts=(), order="time"):
    lines = findings(RawTables(order, parts, texts))
    return dict(line.split(maxsplit=1) for line in lines if line[0] != " " and "  " in line), lines


def test_parts_are_counted_as_one_table():
    first = events(("u", "a", 86_400), ("v", "b", 0), left_out=2)
    second = events(("u", "c", 864_000), ("u", "a", 5))
    texts = [items(("a", "Desk"), ("z", "Lamp")), items(("b", " "), ("c", "Chair"), ("y", "Bed"))]
    facts, lines = told(first, second, texts=texts)
    assert facts["interactions"] == "4"
    assert (facts["users"], facts["items"]) == ("2", "3")
    assert facts["times"] == "1970-01-01 to 1970-01-11"
    assert facts["texts"] == "2 of 3 items that somebody had have one"
    assert facts["rows"].split()[-1] == "9"
    assert "left out       2 rated too low" in lines
    assert lines[-3:] == ["  a: Desk", "  z: Lamp", "  c: Chair"]


def test_refused_rows_are_counted_over_all_parts_and_the_first_are_shown(tmp_path):
    refused = [
        RejectedRow.of(tmp_path / "f.csv", n, "the time is strange", str(n)) for n in range(8)
    ]
    _, lines = told(
        events(("u", "a", 1), rejected=tuple(refused[:3])),
        events(("u", "a", 2), rejected=tuple(refused[3:])),
    )
    start = lines.index("refused        8")
    assert lines[start + 1] == "  8 x the time is strange"
    assert lines[start + 2 : start + 7] == [f"  f.csv:{n}: '{n}'" for n in range(5)]
    assert lines[start + 7] == "  a run stops: mend them, or set cleaning: {max_bad_rows: 8}"


def test_nothing_and_no_times():
    facts, _ = told(events(), texts=[items(("a", "Desk"))])
    assert (facts["interactions"], facts["items"], facts["times"]) == ("0", "0", "none")
    facts, _ = told(events(("u", "a", 0)), order="sequence")
    assert facts["times"] == "none: a user's events stand in order"
    assert facts["texts"] == "0 of 1 items that somebody had have one"
