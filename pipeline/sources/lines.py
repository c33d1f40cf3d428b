"""Lines of a block one by one, each with its number, whatever is wrong with it.

polars' own readers refuse a bad file without saying where, or mend it in silence. This is the
line-accurate slow way, taken for the blocks that the fast way refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.sources.blocks import LONGEST_LINE, Block
from pipeline.sources.tables import RejectedRow

NOT_UTF8 = "is not valid UTF-8"
HAS_NUL = "holds a NUL byte"
TOO_LONG = f"is a line of more than {LONGEST_LINE >> 20} MiB"


@dataclass(frozen=True)
class TextLines:
    """Lines without those that are blank or rejected.

    rows: line Int64 (1-based), row String.
    rows_read: lines that are not blank, good and bad.
    """

    file: Path
    rows: pl.DataFrame
    rows_read: int
    rejected: tuple[RejectedRow, ...]


def block_lines(block: Block) -> TextLines:
    """All lines of a block, strictly decoded."""
    lines, rejected = _decoded(block)
    rows = pl.DataFrame(
        {
            "line": pl.Series(range(block.first_line, block.first_line + len(lines))).cast(
                pl.Int64
            ),
            "row": pl.Series(lines, dtype=pl.String),
        }
    ).filter(pl.col("row").str.strip_chars() != "")
    return TextLines(block.file, rows, rows.height + len(rejected), tuple(rejected))


def sound_text(block: Block) -> str | None:
    """The block as text if it is whole, valid UTF-8 and without NUL bytes, else None."""
    if block.too_long or b"\0" in block.data:
        return None
    try:
        return block.data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _decoded(block: Block) -> tuple[list[str | None], list[RejectedRow]]:
    """All lines as text, with None where a line was rejected."""
    if (text := sound_text(block)) is not None:
        return list(text.removesuffix("\n").split("\n")), []
    lines: list[str | None] = []
    rejected: list[RejectedRow] = []
    for number, raw in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first_line):
        reason = TOO_LONG if block.too_long else HAS_NUL if b"\0" in raw else None
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            reason, text = reason or NOT_UTF8, raw.decode("utf-8", "backslashreplace")
        lines.append(text if reason is None else None)
        if reason is not None:
            rejected.append(RejectedRow.of(block.file, number, reason, text))
    return lines, rejected
