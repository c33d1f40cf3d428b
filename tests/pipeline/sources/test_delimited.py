from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.blocks import Block
from pipeline.sources.csv_records import OTHER_COUNT, csv_records
from pipeline.sources.delimited import (
    CSV,
    TSV,
    Layout,
    delimited_pieces,
    split_quoted,
    split_unquoted,
)
from pipeline.sources.lines import block_lines
from pipeline.sources.pieces import Piece

COLUMNS = {"one": "y", "two": "x"}
plain_fields = st.text("ab ,;'\t\u00e9\r", max_size=6)
fields = st.text('ab ,"\n\u00e9', max_size=6)


def written(tmp_path_factory, text: str):
    file = tmp_path_factory.mktemp("delimited") / "a.csv"
    file.write_bytes(text.encode())
    return file


def slow(piece: Piece) -> tuple[list, list, int]:
    found = piece.slow()
    rows = found.rows.select("line", *COLUMNS).rows()
    return rows, [(r.line, r.reason, r.row) for r in found.rejected], found.rows_read


def whole(pieces) -> tuple[list, list, int]:
    every = [slow(piece) for piece in pieces]
    return (
        [row for rows, _, _ in every for row in rows],
        [row for _, rejected, _ in every for row in rejected],
        sum(read for _, _, read in every),
    )


@given(st.lists(st.lists(plain_fields, min_size=1, max_size=4), max_size=8))
def test_without_quotes_both_csv_readers_agree(rows):
    data = "".join(",".join(row).replace("\r", "") + "\n" for row in rows).encode()
    lines = block_lines(replace(Block(None, 2, b""), data=data))
    places = {"one": 1, "two": 0}
    one, other = split_unquoted(lines, ",", 2, places, OTHER_COUNT), split_quoted(lines, 2, places)
    assert (
        one.rows.select("line", "one", "two").rows()
        == other.rows.select("line", "one", "two").rows()
    )
    assert sorted(one.rejected, key=lambda row: row.line) == list(other.rejected)


@given(
    st.lists(st.lists(plain_fields, min_size=1, max_size=4), max_size=8),
    st.sampled_from([CSV, TSV, Layout("::"), Layout(";")]),
    st.booleans(),
)
def test_the_fast_way_gives_what_the_slow_one_gives(tmp_path_factory, rows, layout, ends):
    text = "\n".join(layout.separator.join(row) for row in [["x", "y"], *rows])
    file = written(tmp_path_factory, text + "\n" * ends)
    for piece in delimited_pieces(file, COLUMNS, layout):
        if piece.fast is not None:
            found = piece.slow()
            blank = pl.all_horizontal(pl.col("one", "two").str.strip_chars() == "")
            # A blank line is skipped: the fast way sees its empty fields, which no table allows.
            assert (
                piece.fast.filter(~blank).rows()
                == found.rows.select("one", "two").filter(~blank).rows()
            )
            assert found.rejected == ()


def test_the_fast_way_is_taken_where_all_is_sound(tmp_path_factory):
    for text in ("x,y\n1,2\n3,4\n", 'x,y\n1,"two, ""2"""\n3,4\n'):
        (piece,) = delimited_pieces(written(tmp_path_factory, text), COLUMNS, CSV)
        assert piece.fast is not None
        assert piece.fast.rows() == piece.slow().rows.select("one", "two").rows()


def test_a_line_too_long_does_not_make_up_for_one_too_short(tmp_path_factory):
    file = written(tmp_path_factory, "x,y\n1,2\n1,2,3\n1\n")
    (piece,) = delimited_pieces(file, {"one": "x"}, CSV)
    assert piece.fast is None


@pytest.mark.parametrize("line", ["1", "1,2,3", "1,\x00", "\udcff,2", '1,"2', '1,"a"b'])
def test_a_bad_line_ends_the_fast_way(tmp_path, line):
    file = tmp_path / "a.csv"
    file.write_bytes(f"x,y\n5,6\n{line}\n7,8\n".encode(errors="surrogateescape"))
    pieces = list(delimited_pieces(file, COLUMNS, CSV))
    assert pieces[0].fast is None
    rows, rejected, read = whole(pieces)
    assert rows == [(2, "6", "5"), (4, "8", "7")]
    assert [number for number, _, _ in rejected] == [3]
    assert read == 3


@settings(max_examples=300)
@given(st.lists(st.lists(fields, min_size=1, max_size=3), max_size=8), st.integers(1, 30))
def test_blocks_of_any_size_give_the_same(tmp_path_factory, rows, size):
    text = "x,y\n" + "\n".join(",".join(row) for row in rows)
    file = written(tmp_path_factory, text)
    expected = whole(delimited_pieces(file, COLUMNS, CSV))
    assert whole(delimited_pieces(file, COLUMNS, CSV, block_bytes=size)) == expected


@settings(max_examples=300)
@given(st.lists(st.lists(fields, min_size=2, max_size=2), max_size=8))
def test_the_fast_way_gives_what_the_slow_one_gives_with_quotes_too(tmp_path_factory, rows):
    text = "x,y\n" + "\n".join(",".join(row) for row in rows)
    for piece in delimited_pieces(written(tmp_path_factory, text), COLUMNS, CSV):
        if piece.fast is not None and '"' in text:
            found = piece.slow()
            assert piece.fast.rows() == found.rows.select("one", "two").rows()
            assert found.rejected == ()


def test_a_quoted_record_that_spans_blocks_stays_whole(tmp_path_factory):
    text = 'x,y\n1,"two\n\nlong lines,\nand one"\n3,4\n5\n'
    file = written(tmp_path_factory, text)
    rows, rejected, read = whole(delimited_pieces(file, COLUMNS, CSV, block_bytes=8))
    assert rows == [(2, "two\nlong lines,\nand one", "1"), (6, "4", "3")]
    assert [line for line, _, _ in rejected] == [7]
    assert read == 3


def faults(text: str) -> list[tuple[int, tuple[str, ...], bool]]:
    texts = text.split("\n")
    records = csv_records(range(1, len(texts) + 1), texts, 2)
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
