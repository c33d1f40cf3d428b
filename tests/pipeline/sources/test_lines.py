import gzip

import pytest

from pipeline.sources.lines import HAS_NUL, NOT_UTF8, read_lines


def test_lines_keep_their_numbers_past_blank_ones_a_byte_order_mark_and_crlf(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\n   \nthree")
    lines = read_lines(file)
    assert lines.rows.rows() == [(1, "one"), (3, "two"), (5, "three")]
    assert (lines.rows_read, lines.rejected) == (3, ())


def test_bytes_that_are_not_utf8_reject_their_own_line_alone(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"good\nbad \xff here\nnul \x00 here\nlast")
    lines = read_lines(file)
    assert lines.rows.rows() == [(1, "good"), (4, "last")]
    assert [(r.line, r.reason) for r in lines.rejected] == [(2, NOT_UTF8), (3, HAS_NUL)]
    assert lines.rows_read == 4


def test_an_empty_file_has_no_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.touch()
    assert read_lines(file).rows.height == 0


def test_gzip_that_breaks_off_names_the_file_and_what_to_do(tmp_path):
    file = tmp_path / "a.tsv.gz"
    whole = gzip.compress(b"".join(b"line %d\n" % n for n in range(10_000)))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.tsv\.gz:\d+: the gzip data are damaged or break off"):
        read_lines(file)


def test_a_file_that_is_no_gzip_is_refused(tmp_path):
    file = tmp_path / "a.tsv.gz"
    file.write_bytes(b"plain text")
    with pytest.raises(ValueError, match="gzip data are damaged"):
        read_lines(file)


def test_utf16_is_refused(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("hello", encoding="utf-16")
    with pytest.raises(ValueError, match="UTF-16, expected UTF-8"):
        read_lines(file)
