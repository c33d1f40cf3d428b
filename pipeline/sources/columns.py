"""Named columns out of a CSV, TSV, JSONL or Parquet file, as strings with their line numbers.

A CSV file without a quote character is split by polars, with one in it by the csv module; where
both apply they give the same (tested). JSONL has one strict path: polars' reader turns what is
not Unicode into other characters in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pipeline.sources.csv_records import OTHER_COUNT, csv_records
from pipeline.sources.lines import TextLines, read_lines
from pipeline.sources.tables import RejectedRow, first_reason, reject_where_reason

TableKind = Literal["csv", "tsv", "jsonl", "parquet"]
_KINDS: dict[str, TableKind] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Columns:
    """The columns asked for.

    rows: line Int64 (1-based; Parquet: the row), row String (for messages), and each column as
        String, null where it has no value.
    """

    file: Path
    rows: pl.DataFrame
    rows_read: int
    rejected: tuple[RejectedRow, ...]
    in_seconds: frozenset[str] = frozenset()  # columns of a time type, given in unix seconds


def table_kind(path: Path) -> TableKind:
    """The kind of a table by its name, with .gz taken off.

    Raises:
        ValueError: the name ends otherwise.
    """
    name = path.name.removesuffix(".gz")
    kind = _KINDS.get(Path(name).suffix.lower())
    if kind is None or (kind == "parquet" and name != path.name):
        raise ValueError(
            f"the table {path.name!r} has an unknown ending: expected .csv, .tsv, .jsonl or "
            ".ndjson (each also .gz), or .parquet"
        )
    return kind


def read_columns(file: Path, columns: Mapping[str, str]) -> Columns:
    """Read some of a file's columns under new names.

    Args:
        file: its name's ending says what it is.
        columns: the new name of each column wanted -> its name in the file. A new name that
            ends in `_id` asks for exact values: a column of floats is refused.

    Raises:
        ValueError: a column is absent, or the file is damaged as a whole.
    """
    match table_kind(file):
        case "parquet":
            return _read_parquet(file, columns)
        case "jsonl":
            return _read_jsonl(file, columns)
        case "csv":
            return _read_delimited(file, columns, ",")
        case "tsv":
            return _read_delimited(file, columns, "\t")


def _places(file: Path, columns: Mapping[str, str], present: Sequence[str]) -> dict[str, int]:
    """Where each column stands in the file, by its new name."""
    for name in columns.values():
        if name not in present:
            raise ValueError(
                f"{file} has no column {name!r}: it has {', '.join(map(repr, present))}; "
                "correct source.columns in the config"
            )
        if list(present).count(name) > 1:
            raise ValueError(f"{file} has two columns {name!r}: rename one of them")
    return {new: list(present).index(name) for new, name in columns.items()}


def _read_delimited(file: Path, columns: Mapping[str, str], separator: str) -> Columns:
    lines = read_lines(file)
    if lines.rows.is_empty():
        raise ValueError(f"{file} is empty: expected a header line with the columns' names")
    # Only CSV quotes; a TSV file keeps its quote characters as they are.
    quoted = separator == "," and bool(lines.rows["row"].str.contains('"', literal=True).any())
    rows, rejected = (
        read_quoted(lines, columns) if quoted else split_unquoted(lines, columns, separator)
    )
    # The header is a line, but no row.
    return Columns(file, rows, lines.rows_read - 1, (*lines.rejected, *rejected))


def split_unquoted(
    lines: TextLines, columns: Mapping[str, str], separator: str
) -> tuple[pl.DataFrame, list[RejectedRow]]:
    """The columns of lines in which no field is quoted; the first line is the header."""
    header = lines.rows["row"][0].split(separator)
    places = _places(lines.file, columns, header)
    separators = pl.col("row").str.count_matches(separator, literal=True)
    fault = first_reason([(separators != len(header) - 1, OTHER_COUNT)])
    rows, rejected = reject_where_reason(lines.rows.slice(1).with_columns(fault), lines.file)
    fields = pl.col("row").str.split(separator)
    taken = (fields.list.get(at, null_on_oob=True).alias(new) for new, at in places.items())
    return rows.with_columns(taken), rejected


def read_quoted(
    lines: TextLines, columns: Mapping[str, str]
) -> tuple[pl.DataFrame, list[RejectedRow]]:
    """The columns of CSV lines; the first record is the header."""
    records = csv_records(lines.rows["line"].to_list(), lines.rows["row"].to_list())
    header = next(records)
    if header.fault is not None:
        raise ValueError(f"{lines.file}:{header.line}: the header {header.fault}")
    places = _places(lines.file, columns, header.fields)
    rejected: list[RejectedRow] = []
    kept: list[list[Any]] = []
    for record in records:
        if record.fault is None:
            taken = (record.fields[at] for at in places.values())
            kept.append([record.line, record.text, *taken])
        else:
            rejected.append(RejectedRow.of(lines.file, record.line, record.fault, record.text))
    return _frame(columns, kept), rejected


def _read_jsonl(file: Path, columns: Mapping[str, str]) -> Columns:
    lines = read_lines(file)
    kept: list[list[Any]] = []
    rejected: list[RejectedRow] = []
    # One decoder for all lines: json.loads would build one for each.
    decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
    for number, text in lines.rows.select("line", "row").iter_rows():
        try:
            record = decode(text)
            if not isinstance(record, dict):
                raise ValueError("not an object")
            values = [_json_text(record.get(name)) for name in columns.values()]
            kept.append([number, text[:200], *values])
        except (ValueError, RecursionError):
            reason = "is not a JSON object of texts and numbers"
            rejected.append(RejectedRow.of(file, number, reason, text))
    return Columns(file, _frame(columns, kept), lines.rows_read, (*lines.rejected, *rejected))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json_text(value: Any) -> str | None:
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
        case list():
            return ", ".join(text for text in map(_json_text, value) if text)
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be a text")


def _frame(columns: Iterable[str], rows: list[list[Any]]) -> pl.DataFrame:
    schema = {"line": pl.Int64, "row": pl.String, **dict.fromkeys(columns, pl.String)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _read_parquet(file: Path, columns: Mapping[str, str]) -> Columns:
    try:
        schema = pl.read_parquet_schema(file)
        _places(file, columns, list(schema))
        table = pl.read_parquet(file, columns=list(dict.fromkeys(columns.values())))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is not a readable Parquet file ({reason})") from error
    rows = table.select(
        (pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"),
        *(
            _parquet_text(file, name, table.schema[name], exact=new.endswith("_id")).alias(new)
            for new, name in columns.items()
        ),
    )
    text = pl.concat_str([pl.col(new).fill_null("null") for new in columns], separator=", ")
    times = frozenset(new for new, name in columns.items() if table.schema[name].is_temporal())
    return Columns(file, rows.with_columns(text.alias("row")), rows.height, (), times)


def _parquet_text(file: Path, name: str, dtype: pl.DataType, *, exact: bool) -> pl.Expr:
    """A column as text; times become unix seconds."""
    column = pl.col(name)
    if dtype == pl.String:
        return column
    if dtype.is_float() and exact:
        raise ValueError(
            f"{file}: the ids in the column {name!r} are {dtype}, so that 7 reads 7.0: write them "
            "as whole numbers or text"
        )
    if dtype.is_numeric() or isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if isinstance(dtype, pl.Datetime | pl.Date) and not exact:
        return column.dt.epoch("s").cast(pl.String)
    if isinstance(dtype, pl.List) and dtype.inner == pl.String:
        return column.list.join(", ")
    raise ValueError(
        f"{file}: the column {name!r} is {dtype}, expected text, numbers, times or lists of text"
    )
