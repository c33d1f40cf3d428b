"""Fields of a file that holds an object a line: JSON, or a Python dict as some public dumps do.

There is one strict way: polars' reader turns what is not Unicode into other characters in
silence. Nothing is ever evaluated.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.sources.blocks import Block, first_lines, read_blocks
from pipeline.sources.lines import block_lines
from pipeline.sources.pieces import Columns, Piece
from pipeline.sources.tables import RejectedRow

Decode = Callable[[str], Any]

_NOT_AN_OBJECT = "is not a JSON object of texts and numbers"
# The parser's memory grows with the line; the longest line of the public dumps is far shorter.
_LONGEST_LITERAL = 1 << 20


def json_pieces(
    file: Path, columns: Mapping[str, str], *, decode: Decode | None = None
) -> Iterator[Piece]:
    """Read some fields of each line's object, a block of lines at a time.

    Args:
        file: .gz or plain.
        columns: the new name of each field wanted -> its name in the objects.
        decode: the object of a line, or ValueError; None: JSON.

    Raises:
        ValueError: the file is damaged as a whole. A line without a field has no value there.
    """
    decode = decode or json_decoder()
    for block in read_blocks(file):
        yield Piece(None, partial(_block_columns, block, columns, decode))


def json_decoder() -> Decode:
    """One strict decoder for all lines: json.loads would build one for each."""
    return json.JSONDecoder(parse_constant=_refuse_constant).decode


def object_decoder() -> Decode:
    """Decodes a line of JSON, or of a Python literal such as `{u'user': 'x'}`."""
    decode = json_decoder()

    def decode_either(text: str) -> Any:
        return _literal(text) if text.lstrip()[1:3] in ("u'", 'u"') else decode(text)

    def decode_any(text: str) -> Any:
        try:
            return decode_either(text)
        except ValueError:
            return _literal(text)

    return decode_any


def first_objects(file: Path, count: int = 5) -> list[dict[str, Any]]:
    """The objects among a file's first lines; what is none is passed over.

    Raises:
        ValueError: the file is damaged as a whole.
    """
    decode, found = object_decoder(), []
    for line in first_lines(file, count):
        try:
            value = decode(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _literal(text: str) -> Any:
    """The value of a Python literal.

    Raises:
        ValueError: it is none, or too long to be parsed safely.
    """
    if len(text) > _LONGEST_LITERAL:
        raise ValueError("too long")
    try:
        return ast.literal_eval(text.strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("no literal") from error


def _block_columns(block: Block, columns: Mapping[str, str], decode: Decode) -> Columns:
    lines = block_lines(block)
    kept: list[list[Any]] = []
    rejected = list(lines.rejected)
    names = tuple(columns.values())
    for number, text in lines.rows.iter_rows():
        try:
            record = decode(text)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            kept.append([number, text[:200], *(_as_text(record.get(name)) for name in names)])
        except (ValueError, RecursionError):
            rejected.append(RejectedRow.of(block.file, number, _NOT_AN_OBJECT, text))
    schema = {"line": pl.Int64, "row": pl.String, **dict.fromkeys(columns, pl.String)}
    rows = pl.DataFrame(kept, schema=schema, orient="row")
    return Columns(block.file, rows, lines.rows_read, tuple(rejected))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _as_text(value: Any) -> str | None:
    """Texts and numbers as text; lists of them joined by a comma.

    Raises:
        ValueError: the value is an object, or holds what Unicode does not allow.
    """
    match value:
        case None:
            return None
        case str():
            value.encode("utf-8")  # a lone surrogate raises UnicodeEncodeError, a ValueError
            return value
        case bool() | int() | float():
            return json.dumps(value, allow_nan=False)
        case list() | tuple():
            return ", ".join(text for text in map(_as_text, value) if text)
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be a text")
