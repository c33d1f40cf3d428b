"""Every bad row of the table: what stops a run, and what is set aside."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.resident_memory import peak_extra_bytes
from tests.pipeline.faults.bad_rows import BAD_ROWS
from tests.pipeline.faults.tables import (
    domain_of,
    file_of,
    line_of_the_extra,
    quarantined,
    write,
)

pytestmark = pytest.mark.faults


@pytest.fixture(params=BAD_ROWS, ids=str)
def bad(request, tmp_path):
    row = request.param.row
    write(
        tmp_path, request.param.kind, extra={request.param.table: row() if callable(row) else row}
    )
    return request.param


def test_a_bad_row_stops_the_run_and_says_where_and_what_to_do(bad, tmp_path):
    with pytest.raises(ValueError, match=r"domain shop: 1 of the first \d+ rows") as raised:
        domain_of(tmp_path, bad.kind)
    sentence = str(raised.value)
    assert f"{file_of(bad.kind, bad.table)}:{line_of_the_extra(bad.kind)}: " in sentence
    assert bad.reason in sentence
    assert "cleaning.max_bad_rows is 0" in sentence
    assert sentence.endswith("mend the file or raise max_bad_rows")
    assert len(sentence) < 700


def test_a_bad_row_that_is_allowed_costs_itself_alone_and_is_listed(bad, tmp_path):
    write(tmp_path / "good", bad.kind)
    good = domain_of(tmp_path / "good", bad.kind)
    domain = domain_of(tmp_path, bad.kind, max_bad_rows=1)
    assert domain.interactions.equals(good.interactions)
    assert domain.items.equals(good.items)
    (line,) = quarantined(tmp_path)
    assert line["file"] == file_of(bad.kind, bad.table)
    assert line["line"] == line_of_the_extra(bad.kind)
    assert bad.reason in line["reason"]
    assert len(line["row"]) < 400
    assert domain.report.rejected == {line["reason"]: 1}
    assert domain.report.rows_read == good.report.rows_read + 1


def test_the_table_has_enough_of_them():
    assert len({bad.name for bad in BAD_ROWS}) >= 25
    assert {bad.kind for bad in BAD_ROWS} == {"csv", "tsv", "jsonl", "parquet", "sequences"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_that_is_too_long_is_never_held(kind, tmp_path):
    """120 MB in a line take what 40 MB take: held, it would be 80 MB more."""
    write(tmp_path / "warm", kind, extra={"events": b"x" * 10})
    domain_of(tmp_path / "warm", kind, max_bad_rows=1)
    peaks = []
    for size in (40_000_000, 120_000_000):
        folder = tmp_path / str(size)
        write(folder, kind, extra={"events": b"x" * size})
        peaks.append(peak_extra_bytes(lambda at=folder: domain_of(at, kind, max_bad_rows=1))[0])
    assert peaks[1] < peaks[0] + 30e6
    assert peaks[1] < 120e6


def no_utf8(values):
    """A column of strings whose bytes nobody looks at."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("broken", [b"\xff\xfe", b"\xed\xa0\x80"], ids=["bytes", "surrogate"])
def test_a_parquet_file_may_hold_texts_that_are_none(column, broken, tmp_path):
    table = {"user_id": ["u1", "u2"], "item_id": ["a", "b"], "timestamp": [5, 6]}
    good = [value.encode() for value in table[column]]
    table[column] = no_utf8([good[0], broken, good[1]])
    others = ({"user_id", "item_id"} - {column}).pop()
    table[others] = [table[others][0], "x", table[others][1]]
    table["timestamp"] = [5, 7, 6]
    write(tmp_path, "parquet")
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    with pytest.raises(ValueError, match=r"events\.parquet:2: is not valid UTF-8"):
        domain_of(tmp_path, "parquet")
    domain = domain_of(tmp_path, "parquet", max_bad_rows=1)
    assert domain.interactions.rows() == [("u1", "a", 5), ("u2", "b", 6)]
    assert [(row["line"], row["reason"]) for row in quarantined(tmp_path)] == [
        (2, "is not valid UTF-8")
    ]


def test_nan_in_a_parquet_column_of_times_is_no_time(tmp_path):
    write(tmp_path, "parquet")
    times = pa.array([5.0, float("nan"), float("inf")])
    pq.write_table(
        pa.table({"user_id": ["u1", "u2", "u3"], "item_id": ["a", "b", "c"], "timestamp": times}),
        tmp_path / "events.parquet",
    )
    with pytest.raises(ValueError, match=re.escape("the time is not a number of unix seconds")):
        domain_of(tmp_path, "parquet")
    domain = domain_of(tmp_path, "parquet", max_bad_rows=2)
    assert domain.interactions.rows() == [("u1", "a", 5)]
    assert [row["line"] for row in quarantined(tmp_path)] == [2, 3]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_seconds_where_milliseconds_were_said_are_not_taken_for_days_of_1970(kind, tmp_path):
    write(tmp_path, kind)
    source = {
        "format": "table",
        "interactions": file_of(kind, "events"),
        "columns": {"timestamp_unit": "ms"},
    }
    with pytest.raises(ValueError, match="in unix seconds, not in milliseconds: set the unit to s"):
        domain_of(tmp_path, kind, source=source)
