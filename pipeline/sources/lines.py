"""Read a text file line by line, and know each line's number whatever is wrong with it.

polars' own readers refuse a bad file without saying where, or mend it in silence. Here the bytes
are decompressed and decoded strictly once, and polars gets whole lines as one column.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.sources.tables import RejectedRow

_BLOCK = 1 << 22
_BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "is not valid UTF-8"
HAS_NUL = "holds a NUL byte"


@dataclass(frozen=True)
class TextLines:
    """A file's lines without those that are blank or rejected.

    rows: line Int64 (1-based), row String.
    rows_read: lines that are not blank, good and bad.
    """

    file: Path
    rows: pl.DataFrame
    rows_read: int
    rejected: tuple[RejectedRow, ...]


def read_lines(file: Path) -> TextLines:
    """Read a UTF-8 text file, .gz or plain; a byte order mark and CRLF are accepted.

    Raises:
        ValueError: the gzip data are damaged or break off, or the file is UTF-16.
    """
    data = read_bytes(file)
    lines, rejected = _decoded(file, data)
    rows = pl.DataFrame(
        {"line": pl.Series(range(1, len(lines) + 1), dtype=pl.Int64), "row": lines},
        schema_overrides={"row": pl.String},
    ).filter(pl.col("row").str.strip_chars() != "")
    return TextLines(file, rows, rows.height + len(rejected), tuple(rejected))


def read_bytes(file: Path) -> bytes:
    """The file's bytes, decompressed if its name ends in .gz, without a byte order mark.

    Raises:
        ValueError: the gzip data are damaged or break off; names the line up to which they hold.
    """
    data = _decompressed(file) if file.name.endswith(".gz") else file.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{file}:1: the file is UTF-16, expected UTF-8: convert it")
    return data.removeprefix(_BOM)


def _decompressed(file: Path) -> bytes:
    blocks: list[bytes] = []
    try:
        with gzip.open(file) as stream:
            while block := stream.read(_BLOCK):
                blocks.append(block)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        line = 1 + sum(block.count(b"\n") for block in blocks)
        raise ValueError(
            f"{file}:{line}: the gzip data are damaged or break off after this line ({error}): "
            "fetch or write the file again"
        ) from error
    return b"".join(blocks)


def _decoded(file: Path, data: bytes) -> tuple[list[str | None], list[RejectedRow]]:
    """All lines as text, with None where a line was rejected."""
    data = data.replace(b"\r\n", b"\n")
    if b"\0" not in data:
        try:
            return list(data.decode("utf-8").split("\n")), []
        except UnicodeDecodeError:
            pass  # the line-accurate way below finds out which lines it is
    lines: list[str | None] = []
    rejected: list[RejectedRow] = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        reason = HAS_NUL if b"\0" in raw else None
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            reason, text = NOT_UTF8, raw.decode("utf-8", "backslashreplace")
        lines.append(text if reason is None else None)
        if reason is not None:
            rejected.append(RejectedRow.of(file, number, reason, text))
    return lines, rejected
