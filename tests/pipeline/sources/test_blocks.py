import gzip

import pytest

from pipeline.sources.blocks import first_lines, read_blocks
from pipeline.sources.lines import HAS_NUL, NOT_UTF8, block_lines


def lines(file, size=1 << 22):
    every = [block_lines(block) for block in read_blocks(file, block_bytes=size)]
    return (
        [row for found in every for row in found.rows.rows()],
        [(r.line, r.reason) for found in every for r in found.rejected],
        sum(found.rows_read for found in every),
    )


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1 << 22])
def test_lines_keep_their_numbers_past_blank_ones_a_byte_order_mark_and_crlf(tmp_path, size):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\n   \nthree")
    rows, rejected, read = lines(file, max(size, 3))
    assert rows == [(1, "one"), (3, "two"), (5, "three")]
    assert (rejected, read) == ([], 3)


def test_bytes_that_are_not_utf8_reject_their_own_line_alone(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"good\nbad \xff here\nnul \x00 here\nlast")
    rows, rejected, read = lines(file)
    assert rows == [(1, "good"), (4, "last")]
    assert rejected == [(2, NOT_UTF8), (3, HAS_NUL)]
    assert read == 4


def test_blocks_are_bounded_and_hold_whole_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"".join(b"line %d\n" % n for n in range(10_000)))
    blocks = list(read_blocks(file, block_bytes=1000))
    assert max(len(block.data) for block in blocks) < 1020
    assert all(block.data.endswith(b"\n") for block in blocks)
    assert all(b"line %d\n" % (block.first_line - 1) in block.data for block in blocks)
    assert b"".join(block.data for block in blocks) == file.read_bytes()


def test_an_empty_file_has_no_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.touch()
    assert lines(file) == ([], [], 0)
    assert first_lines(file) == ()


def test_gzip_that_breaks_off_names_the_file_and_what_to_do(tmp_path):
    file = tmp_path / "a.tsv.gz"
    whole = gzip.compress(b"".join(b"line %d\n" % n for n in range(10_000)))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.tsv\.gz:\d+: the gzip data are damaged or break off"):
        lines(file)


def test_a_file_that_is_no_gzip_is_refused(tmp_path):
    file = tmp_path / "a.tsv.gz"
    file.write_bytes(b"plain text")
    with pytest.raises(ValueError, match="gzip data are damaged"):
        lines(file)


def test_utf16_is_refused(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("hello", encoding="utf-16")
    with pytest.raises(ValueError, match="UTF-16, expected UTF-8"):
        lines(file)


def test_latin1_becomes_utf8(tmp_path):
    file = tmp_path / "movies.dat"
    file.write_bytes("Misérables, Les\n".encode("latin-1"))
    (block,) = read_blocks(file, encoding="latin-1")
    assert block_lines(block).rows["row"].to_list() == ["Misérables, Les"]
