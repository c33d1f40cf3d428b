from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.columns import read_quoted, split_unquoted
from pipeline.sources.csv_records import csv_records
from pipeline.sources.lines import TextLines

fields = st.text("ab ,;'\t\u00e9", max_size=6)


@given(st.lists(st.lists(fields, min_size=1, max_size=4), max_size=8))
def test_without_quotes_both_csv_readers_agree(rows):
    texts = ["x,y", *(text for row in rows if (text := ",".join(row)).strip())]
    table = pl.DataFrame({"line": range(1, len(texts) + 1), "row": texts})
    lines = TextLines(Path("a.csv"), table, len(texts), ())
    columns = {"one": "y", "two": "x"}
    fast, fast_rejected = split_unquoted(lines, columns, ",")
    slow, slow_rejected = read_quoted(lines, columns)
    assert fast.select("line", "one", "two").rows() == slow.select("line", "one", "two").rows()
    assert fast_rejected == slow_rejected


def faults(text: str) -> list[tuple[int, tuple[str, ...], bool]]:
    texts = text.split("\n")
    records = csv_records(range(1, len(texts) + 1), texts)
    return [(r.line, r.fields, r.fault is not None) for r in records]


def test_a_quoted_field_may_span_lines():
    assert faults('a,b\n1,"two\nlines"\n3,4') == [
        (1, ("a", "b"), False), (2, ("1", "two\nlines"), False), (4, ("3", "4"), False),
    ]  # fmt: skip


def test_a_stray_quote_costs_its_own_line():
    found = faults('a,b\n1,"open\n3,4\n5,"six"\n7,8')
    assert [(line, fault) for line, _, fault in found] == [
        (1, False), (2, True), (3, False), (4, False), (5, False),
    ]  # fmt: skip


def test_a_stray_quote_before_another_does_not_swallow_the_lines_between():
    found = faults('a,b\n1,"open\n3,4\n5,"open too\n7,8')
    assert [line for line, _, fault in found if fault] == [2, 4]
    assert [fields for _, fields, fault in found if not fault][1:] == [("3", "4"), ("7", "8")]
