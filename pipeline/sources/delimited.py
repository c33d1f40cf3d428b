"""Columns of lines in which a separator stands between fields: CSV, TSV, and `::`.

Where quotes are allowed, a piece without a quote character is split by polars and one with it by
the csv module; where both apply they give the same (tested). So do the fast and the slow way.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.sources.blocks import BLOCK_BYTES, Block, Encoding, read_blocks
from pipeline.sources.csv_records import OTHER_COUNT, csv_records
from pipeline.sources.lines import TextLines, block_lines, sound_text
from pipeline.sources.pieces import Columns, Piece
from pipeline.sources.tables import RejectedRow, first_reason, reject_where_reason

# Stands in for a separator of several characters, since polars splits at one byte.
_STAND_IN = "\x1f"


@dataclass(frozen=True)
class Layout:
    """How a file's lines are made of fields.

    quoted: fields may stand in double quotes, as in CSV.
    header: the fields' names; None: the first line gives them.
    """

    separator: str
    quoted: bool = False
    header: tuple[str, ...] | None = None
    encoding: Encoding = "utf-8"


CSV = Layout(",", quoted=True)
# Only CSV quotes: a TSV file keeps its quote characters as they are.
TSV = Layout("\t")


def delimited_pieces(
    file: Path, columns: Mapping[str, str], layout: Layout, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[Piece]:
    """Read some of a file's columns, a block of lines at a time.

    Args:
        file: .gz or plain.
        columns: the new name of each column wanted -> its name in the header.
        layout: of the file.
        block_bytes: size of a block.

    Raises:
        ValueError: a column is absent, the file is empty, or it is damaged as a whole.
    """
    blocks = read_blocks(file, encoding=layout.encoding, block_bytes=block_bytes)
    split = None if layout.header is None else _split_of(file, columns, layout, layout.header)
    opened: Block | None = None
    for block in blocks:
        if opened is not None and block.too_long:  # a record that goes on into it ends before it
            assert split is not None, "a record stands open, so the header was read"
            yield Piece(None, partial(split.quoted_slow, opened, more_follow=False))
        elif opened is not None:
            block = Block(file, opened.first_line, opened.data + block.data)
        opened = None
        if split is None:
            header = _header(block, layout)
            if header is None:
                continue
            names, block = header
            split = _split_of(file, columns, layout, names)
        if layout.quoted and b'"' in block.data:
            quoted = split.quoted_fast(block)
            opened = None if quoted is not None else _open_record(block, split.width)
            yield Piece(quoted, partial(split.quoted_slow, block, more_follow=True))
        else:
            yield Piece(split.plain_fast(block), partial(split.plain_slow, block))
    if split is None:
        raise ValueError(f"{file} is empty: expected a header line with the columns' names")
    if opened is not None:
        yield Piece(None, partial(split.quoted_slow, opened, more_follow=False))


def _split_of(
    file: Path, columns: Mapping[str, str], layout: Layout, header: Sequence[str]
) -> _Split:
    return _Split(layout, len(header), column_places(file, columns, header))


def column_places(file: Path, columns: Mapping[str, str], present: Sequence[str]) -> dict[str, int]:
    """Where each column stands in the file, by its new name.

    Raises:
        ValueError: one is absent, or stands there twice.
    """
    for name in columns.values():
        if name not in present:
            raise ValueError(
                f"{file} has no column {name!r}: it has {', '.join(map(repr, present))}; "
                "correct the columns of the source in the config"
            )
        if list(present).count(name) > 1:
            raise ValueError(f"{file} has two columns {name!r}: rename one of them")
    return {new: list(present).index(name) for new, name in columns.items()}


@dataclass(frozen=True)
class _Split:
    """Splits blocks of one file; a header stands in none of them.

    width: fields of a line.
    places: the new name of each column wanted -> its place in a line.
    """

    layout: Layout
    width: int
    places: Mapping[str, int]

    def plain_fast(self, block: Block) -> pl.DataFrame | None:
        """The columns if all lines have as many fields as the header, else None."""
        separator, data = self.layout.separator, block.data
        # A lone carriage return before a line's end is polars' to drop, but not ours.
        if sound_text(block) is None or not data or b"\r" in data:
            return None
        if len(separator) > 1:
            if _STAND_IN.encode() in data:
                return None
            data, separator = data.replace(separator.encode(), _STAND_IN.encode()), _STAND_IN
        try:
            rows = pl.read_csv(
                data,
                has_header=False,
                separator=separator,
                quote_char=None,
                schema={str(place): pl.String for place in range(self.width)},
                empty_string_is_null=False,
            )
        except pl.exceptions.PolarsError:
            return None
        # No line has more fields, or polars had refused (which it does only where it reads all
        # columns); so none has fewer if the sum is right.
        if data.count(separator.encode()) != rows.height * (self.width - 1):
            return None
        return rows.select(pl.col(str(at)).alias(new) for new, at in self.places.items())

    def plain_slow(self, block: Block) -> Columns:
        """The same line by line."""
        fields = self.layout.header
        fault = OTHER_COUNT
        if fields is not None:
            fault = f"expected {len(fields)} fields: {', '.join(fields)}"
        separator = self.layout.separator
        return split_unquoted(block_lines(block), separator, self.width, self.places, fault)

    def quoted_fast(self, block: Block) -> pl.DataFrame | None:
        """The columns if all records are sound and none spans lines, else None."""
        if (text := sound_text(block)) is None:
            return None
        lines = text.removesuffix("\n").split("\n")
        # The csv module lets a lone quote within a field pass; for us a record stands open there.
        if any(line.count('"') % 2 for line in lines):
            return None
        try:
            records = list(csv.reader(lines, strict=True))
        except csv.Error:
            return None
        if len(records) != len(lines) or {len(record) for record in records} != {self.width}:
            return None
        return pl.DataFrame(
            {
                new: pl.Series([record[at] for record in records], dtype=pl.String)
                for new, at in self.places.items()
            }
        )

    def quoted_slow(self, block: Block, *, more_follow: bool) -> Columns:
        """The same record by record."""
        lines = block_lines(block)
        return split_quoted(lines, self.width, self.places, more_follow=more_follow)


def split_unquoted(
    lines: TextLines, separator: str, width: int, places: Mapping[str, int], fault: str
) -> Columns:
    """The columns of lines in which no field is quoted; another width is the fault."""
    separators = pl.col("row").str.count_matches(separator, literal=True)
    reason = first_reason([(separators != width - 1, fault)])
    rows, rejected = reject_where_reason(lines.rows.with_columns(reason), lines.file)
    fields = pl.col("row").str.split(separator)
    taken = (fields.list.get(at, null_on_oob=True).alias(new) for new, at in places.items())
    every = (*lines.rejected, *rejected)
    return Columns(lines.file, rows.with_columns(taken), lines.rows_read, every)


def split_quoted(
    lines: TextLines, width: int, places: Mapping[str, int], *, more_follow: bool = False
) -> Columns:
    """The columns of CSV lines, in which a record may span several.

    With `more_follow` a record at the end that may go on after these lines is left out.
    """
    rejected: list[RejectedRow] = []
    kept: list[list[Any]] = []
    numbers = lines.rows["line"].to_list()
    whole = 0
    for record in csv_records(numbers, lines.rows["row"].to_list(), width, more_follow=more_follow):
        whole += record.lines
        if record.fault is None:
            taken = (record.fields[at] for at in places.values())
            kept.append([record.line, record.text, *taken])
        else:
            rejected.append(RejectedRow.of(lines.file, record.line, record.fault, record.text))
    left = numbers[whole] if whole < len(numbers) else None
    undecoded = (row for row in lines.rejected if left is None or row.line < left)
    rejected.extend(undecoded)
    schema = {"line": pl.Int64, "row": pl.String, **dict.fromkeys(places, pl.String)}
    rows = pl.DataFrame(kept, schema=schema, orient="row")
    return Columns(lines.file, rows, rows.height + len(rejected), tuple(rejected))


def _header(block: Block, layout: Layout) -> tuple[tuple[str, ...], Block] | None:
    """The fields of the first line that is not blank, and the lines after it; None: all are."""
    for place, raw in enumerate(block.data.split(b"\n")):
        lines = block_lines(replace(block, data=raw))
        where = f"{block.file}:{block.first_line + place}"
        if lines.rejected:
            (fault,) = lines.rejected
            raise ValueError(
                f"{where}: the header {fault.reason}, expected the columns' names in UTF-8: "
                "convert or write the file again"
            )
        if not lines.rows_read:
            continue
        (text,) = lines.rows["row"].to_list()
        rest = block.after(place + 1) if block.data.count(b"\n") > place else _end(block)
        if not layout.quoted or '"' not in text:
            return tuple(text.split(layout.separator)), rest
        (record,) = csv_records([place], [text], None)
        if record.fault is not None:
            raise ValueError(f"{where}: the header {record.fault}")
        return record.fields, rest
    return None


def _end(block: Block) -> Block:
    return Block(block.file, block.first_line + block.data.count(b"\n") + 1, b"")


def _open_record(block: Block, width: int) -> Block | None:
    """The record at the block's end that may go on in the next one, if there is one."""
    lines = block_lines(block).rows
    numbers = lines["line"].to_list()
    records = csv_records(numbers, lines["row"].to_list(), width, more_follow=True)
    whole = sum(record.lines for record in records)
    if whole == len(numbers):
        return None
    return block.after(numbers[whole] - block.first_line)
