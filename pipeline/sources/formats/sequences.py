"""The `sequences` format: a folder with items.tsv.gz and sequences.tsv.gz.

items.tsv.gz      item_id TAB title TAB description
sequences.tsv.gz  user_id TAB item ids in order TAB their times, unix seconds (or nothing)

No header, no quoting; ids and times within a field are separated by single spaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from pipeline.sources.blocks import read_blocks
from pipeline.sources.delimited import Layout, delimited_pieces
from pipeline.sources.events import SeenUsers, id_checks, id_list_checks, item_parts
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.options import SourceOptions, existing_file
from pipeline.sources.pieces import Rules, bounded
from pipeline.sources.tables import EARLIEST, LATEST, Order, Part, RawTables
from pipeline.storage.local_copy import on_this_machine

TextField = Literal["title", "description"]

_HISTORIES = ("user_id", "item_id", "timestamp")
_ITEMS = ("item_id", "title", "description")


class SequencesConfig(SourceOptions):
    """A folder of whole user histories."""

    format: Literal["sequences"] = Field("sequences", description="this format's name")
    path: str = Field(
        description="folder with items.tsv.gz and sequences.tsv.gz: absolute, or relative to the "
        "data root (HYDRAREC_DATA)"
    )
    text_fields: tuple[TextField, ...] = Field(
        ("title", "description"),
        min_length=1,
        description="columns of items.tsv.gz that make an item's text, in this order",
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """sequences.tsv.gz and items.tsv.gz, absolute."""
        folder = on_this_machine(self.path, data_root)
        return folder / "sequences.tsv.gz", folder / "items.tsv.gz"

    def describe(self) -> str:
        """The format and the folder's name."""
        return f"sequences {Path(self.path).name}"


def read_sequences(config: SequencesConfig, data_root: Path) -> RawTables:
    """Read a folder of user histories.

    The order is `time` if any row has times: rows without them are then rejected. Otherwise it
    is `sequence`, and a user who stands on a second line is rejected there.

    Raises:
        ValueError: a file is absent; while reading, one is damaged as a whole.
    """
    sequences, items = (existing_file(f, config.describe()) for f in config.files(data_root))
    order: Order = "time" if _has_times(sequences) else "sequence"
    layout = Layout("\t", header=_ITEMS)
    pieces = delimited_pieces(items, {name: name for name in _ITEMS}, layout)
    return RawTables(
        order=order,
        interactions=bounded(_histories(sequences, timed=order == "time")),
        items=item_parts(pieces, config.text_fields),
    )


def _has_times(file: Path) -> bool:
    """Whether any row has something in its third field; reads until the first that has."""
    for block in read_blocks(file):
        for line in block.data.splitlines():
            if line.count(b"\t") == 2 and not line.endswith(b"\t"):
                return True
    return False


def _histories(file: Path, *, timed: bool) -> Iterator[Part]:
    seen = SeenUsers()
    rules = Rules(_with_times, _timed_checks()) if timed else Rules(
        lambda rows: _with_places(rows, seen), _untimed_checks()
    )  # fmt: skip
    layout = Layout("\t", header=_HISTORIES)
    for piece in delimited_pieces(file, {name: name for name in _HISTORIES}, layout):
        # Whoever was seen must not be asked for twice, so untimed rows have one way alone.
        part = rules.apply(piece if timed else replace(piece, fast=None))
        rows = part.rows.select(_HISTORIES).explode("item_id", "timestamp")
        yield replace(part, rows=rows)


def _with_times(rows: pl.DataFrame) -> pl.DataFrame:
    times = pl.col("timestamp")
    return rows.with_columns(
        pl.col("item_id").str.split(" "),
        pl.when(times == "")
        .then(None)
        .otherwise(times)
        .str.split(" ")
        .cast(pl.List(pl.Int64), strict=False)
        .alias("timestamp"),
        (times == "").alias("untimed"),
    )


def _with_places(rows: pl.DataFrame, seen: SeenUsers) -> pl.DataFrame:
    rows = rows.with_columns(pl.col("item_id").str.split(" "))
    return rows.with_columns(
        pl.int_ranges(pl.col("item_id").list.len()).alias("timestamp"),
        seen.repeated(rows["user_id"]).alias("again"),
    )


def _checks() -> tuple[tuple[pl.Expr, str], ...]:
    return (
        *id_checks(pl.col("user_id"), "the user id"),
        *id_list_checks("item_id", "an item id (ids are separated by one space)"),
    )


def _timed_checks() -> tuple[tuple[pl.Expr, str], ...]:
    items, times = pl.col("item_id"), pl.col("timestamp")
    wrong = times.list.eval(~pl.element().is_between(EARLIEST, LATEST)).list.any()
    return (
        *_checks(),
        (pl.col("untimed"), "has no times, although other rows have"),
        (times.list.len() != items.list.len(), "has not as many times as items"),
        (times.list.eval(pl.element().is_null()).list.any(), "a time is not a whole number"),
        (wrong, "a time is not in unix seconds (years 1900 to 2200)"),
    )


def _untimed_checks() -> tuple[tuple[pl.Expr, str], ...]:
    why = "the user stands on an earlier line, and without times the order of both is unknown"
    return (*_checks(), (pl.col("again"), why))


def _recognise(sight: Sight) -> Guess | None:
    folder = sight.path if sight.path.is_dir() else sight.path.parent
    names = {file.name for file in sight.files()}
    wanted = {"sequences.tsv.gz", "items.tsv.gz"}
    if (sight.path.is_dir() and wanted <= names) or (
        sight.path.name in wanted and all((folder / name).is_file() for name in wanted)
    ):
        return Guess({"path": str(folder)}, "it holds sequences.tsv.gz and items.tsv.gz")
    return None


FORMAT = Format(
    config=SequencesConfig,
    read=read_sequences,
    summary="a folder with sequences.tsv.gz and items.tsv.gz",
    recognise=_recognise,
)
