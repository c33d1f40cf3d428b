"""Fields of a file that holds an object a line: JSON, or a Python dict as some public dumps do.

There is one strict way: polars' reader turns what is not Unicode into other characters in
silence. A Python dict is rewritten as JSON token by token: nothing is ever evaluated, Python's
parser never sees it, and the JSON decoder bounds how deep objects may nest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.sources.blocks import Block, first_lines, read_blocks
from pipeline.sources.delimited import column_places
from pipeline.sources.lines import block_lines
from pipeline.sources.pieces import Columns, Piece
from pipeline.sources.tables import RejectedRow

Decode = Callable[[str], Any]

# What the files of public dumps are called.
JSON_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")

_NOT_AN_OBJECT = "is not a JSON object of texts and numbers"
_REPEATED = "has a field twice, with no telling which of the two counts"
_NO_ID = "has an id that is neither a text nor a whole number"
# A string of a Python literal, closed or up to the line's end; or a word unlike JSON's.
# Possessive, so that no line takes more than linear time.
_TOKEN = re.compile(
    r"""u?'((?:[^'\\]|\\.)*+)(?:'|\\?\Z)|u?"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)|\b(?:True|False|None)\b"""
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
# What a string's inside must escape in JSON or escapes otherwise in Python.
_ESCAPE = re.compile(r"""\\x([0-9a-fA-F]{2})|\\U([0-9a-fA-F]{8})|\\(.)|(")""")


class _RowError(ValueError):
    """What is wrong with a line, as its reason."""


def json_pieces(
    file: Path,
    columns: Mapping[str, str],
    *,
    decode: Decode | None = None,
    every_column: bool = False,
) -> Iterator[Piece]:
    """Read some fields of each line's object, a block of lines at a time.

    Args:
        file: .gz or plain.
        columns: the new name of each field wanted -> its name in the objects. A new name that
            ends in `_id` asks for exact values: only texts and whole numbers are ids.
        decode: the object of a line, or ValueError; None: JSON.
        every_column: refuse a file in which a field stands in no line: a misspelt name.

    Raises:
        ValueError: the file is damaged as a whole. A line without a field has no value there.
    """
    decode, present = decode or json_decoder(), dict[str, None]()
    for block in read_blocks(file):
        yield Piece(None, partial(_block_columns, block, columns, decode, present))
    if every_column and not present:
        raise ValueError(f"{file} holds no object: expected a JSON object a line")
    if every_column:
        column_places(file, columns, list(present))


def json_decoder() -> Decode:
    """One strict decoder for all lines: json.loads would build one for each."""
    return json.JSONDecoder(
        parse_constant=_refuse_constant, object_pairs_hook=_without_repeats
    ).decode


def object_decoder() -> Decode:
    """Decodes a line of JSON, or of a Python dict such as `{u'user': 'x', 'new': True}`."""
    decode = json_decoder()

    def decode_any(text: str) -> Any:
        try:
            return decode(text)
        except _RowError:
            raise
        except ValueError:
            return decode(_TOKEN.sub(_token_as_json, text))

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


def _token_as_json(token: re.Match[str]) -> str:
    text = token[1] if token[1] is not None else token[2]
    if text is None:
        return _WORDS[token[0]]
    return f'"{_ESCAPE.sub(_escape_as_json, text)}"'


def _escape_as_json(escape: re.Match[str]) -> str:
    byte, wide, other, quote = escape.groups()
    if byte is not None:
        return f"\\u00{byte}"
    if wide is not None:
        return json.dumps(chr(int(wide, 16)))[1:-1]  # ValueError beyond Unicode
    if quote is not None or other == '"':
        return '\\"'
    # An escape that JSON does not know either is the decoder's to refuse.
    return "'" if other == "'" else f"\\{other}"


def _block_columns(
    block: Block, columns: Mapping[str, str], decode: Decode, present: dict[str, None]
) -> Columns:
    """The fields of a block's lines; the names of all fields are added to `present`."""
    lines = block_lines(block)
    kept: list[list[Any]] = []
    rejected = list(lines.rejected)
    fields = [(name, _as_id if new.endswith("_id") else _as_text) for new, name in columns.items()]
    for number, text in lines.rows.iter_rows():
        try:
            record = decode(text)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            if not record.keys() <= present.keys():
                present.update(dict.fromkeys(record))
            kept.append([number, text[:200], *(read(record.get(name)) for name, read in fields)])
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, _RowError) else _NOT_AN_OBJECT
            rejected.append(RejectedRow.of(block.file, number, reason, text))
    schema = {"line": pl.Int64, "row": pl.String, **dict.fromkeys(columns, pl.String)}
    rows = pl.DataFrame(kept, schema=schema, orient="row")
    return Columns(block.file, rows, lines.rows_read, tuple(rejected))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _RowError(_REPEATED)
    return record


def _as_id(value: Any) -> str | None:
    """A text or a whole number as text.

    Raises:
        ValueError: the value is anything else, or holds what Unicode does not allow.
    """
    if value is None or isinstance(value, str) or type(value) is int:
        return _as_text(value)
    raise _RowError(_NO_ID)


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
