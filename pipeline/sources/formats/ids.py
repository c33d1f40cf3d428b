"""The `ids` format: one user a line, the user id and then item ids in order; no times, no texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from pipeline.sources.blocks import Block, first_lines, read_blocks
from pipeline.sources.events import SeenUsers, id_checks, id_list_checks
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.lines import block_lines
from pipeline.sources.options import SourceOptions, existing_file
from pipeline.sources.pieces import Columns, Piece, Rules, bounded
from pipeline.sources.tables import Part, RawTables
from pipeline.storage.local_copy import on_this_machine


class IdsConfig(SourceOptions):
    """A file of user histories as bare ids."""

    format: Literal["ids"] = Field("ids", description="this format's name")
    path: str = Field(
        description="file with a user a line (user id, item ids in order, separated by spaces; "
        ".gz too): absolute, or relative to the data root (HYDRAREC_DATA)"
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The one file, absolute."""
        return (on_this_machine(self.path, data_root),)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"ids {Path(self.path).name}"


def read_ids(config: IdsConfig, data_root: Path) -> RawTables:
    """Read a file of bare ids; the order is `sequence`.

    Raises:
        ValueError: the file is absent; while reading, it is damaged as a whole.
    """
    file = existing_file(config.files(data_root)[0], config.describe())
    return RawTables(order="sequence", interactions=bounded(_parts(file)), items=())


def _parts(file: Path) -> Iterator[Part]:
    seen = SeenUsers()
    rules = Rules(
        lambda rows: _with_ids(rows, seen),
        (
            (pl.col("item_id").list.len() == 0, "has a user id but no item ids"),
            *id_checks(pl.col("user_id"), "the user id"),
            *id_list_checks("item_id", "an item id"),
            (pl.col("again"), "the user stands on an earlier line too"),
        ),
    )
    for block in read_blocks(file):
        # Every line is looked at anyway, so there is one way for all blocks.
        part = rules.apply(Piece(None, partial(_lines, block)))
        events = part.rows.with_columns(
            pl.int_ranges(pl.col("item_id").list.len()).alias("timestamp")
        )
        rows = events.select("user_id", "item_id", "timestamp").explode("item_id", "timestamp")
        yield replace(part, rows=rows)


def _lines(block: Block) -> Columns:
    lines = block_lines(block)
    return Columns(lines.file, lines.rows, lines.rows_read, lines.rejected)


def _with_ids(rows: pl.DataFrame, seen: SeenUsers) -> pl.DataFrame:
    # Published files differ in their spaces; ids hold none, so any run of them separates.
    ids = pl.col("row").str.strip_chars().str.replace_all(r"\s+", " ").str.split(" ")
    rows = rows.with_columns(ids.list.first().alias("user_id"), ids.list.slice(1).alias("item_id"))
    return rows.with_columns(seen.repeated(rows["user_id"]).alias("again"))


def _recognise(sight: Sight) -> Guess | None:
    if not sight.path.is_file() or Path(sight.path.name.removesuffix(".gz")).suffix != ".txt":
        return None
    lines = [line.split() for line in first_lines(sight.path)]
    ids = [text for line in lines for text in line]
    users = [line[0] for line in lines]
    if not lines or min(map(len, lines)) < 2 or len(set(users)) < len(users):
        return None
    if len(set(map(len, lines))) == 1 or not all(text.isalnum() for text in ids):
        return None
    why = "each line holds a user's id and then item ids, no two users alike and no header"
    return Guess({"path": str(sight.path)}, why)


FORMAT = Format(
    config=IdsConfig,
    read=read_ids,
    summary="a .txt file, a user a line: the user's id and item ids in order",
    recognise=_recognise,
    is_general=True,
)
