"""One text for each item that is left: normalised, cut, and the best where there are several.

Of several texts for one id the longest stays, of equally long ones the first by alphabet:
whichever stands first in the file means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.domain_report import TextCounts
from pipeline.sources.text import cut_text, holds_markup, normalise_text
from pipeline.spill import WORKING_BYTES, Spill
from pipeline.string_table import StringTable, StringTableWriter

_SLICE = 20_000  # texts held as Python's strings at a time


def best_texts(rows: pl.DataFrame, key: str, max_chars: int) -> pl.DataFrame:
    """One clean text a key, with what was done to any of its texts.

    Args:
        rows: `key`, and text String (raw, may be null).
        key: the column that says whose text it is.
        max_chars: where texts are cut.

    Returns:
        `key`, text String, chars UInt32 (its length), html Boolean (a text held tags or
        entities), cut Boolean (a text was cut); each key once, in no order.
    """
    slices = [_cleaned(rows.select(key, "text"), max_chars) for rows in rows.iter_slices(_SLICE)]
    clean = pl.concat(slices or [_cleaned(rows.select(key, "text"), max_chars)])
    if clean[key].is_duplicated().any():
        clean = clean.with_columns(pl.col("html", "cut").any().over(key))
        clean = clean.sort("chars", "text", descending=[True, False])
    return clean.unique(key, keep="first", maintain_order=True)


def _cleaned(rows: pl.DataFrame, max_chars: int) -> pl.DataFrame:
    raw = [text or "" for text in rows["text"].to_list()]
    whole = [normalise_text(text) for text in raw]
    return rows.with_columns(
        pl.Series("text", [cut_text(text, max_chars) for text in whole], dtype=pl.String),
        pl.Series("html", [holds_markup(text) for text in raw], dtype=pl.Boolean),
        pl.Series("cut", [len(text) > max_chars for text in whole], dtype=pl.Boolean),
    ).with_columns(pl.col("text").str.len_chars().alias("chars"))


def write_texts(
    raw: Spill, item_ids: pl.Series, max_chars: int, path: Path, most: int = WORKING_BYTES
) -> TextCounts:
    """Write a StringTable with the best text of each item, "" if there is none.

    Args:
        raw: item_id String, text String (raw, may be null); may lack items and may repeat some.
        item_ids: those wanted, each once, sorted.
        max_chars: where texts are cut.
        path: of the table; files with its name and `.N.part` are made beside it and removed.
        most: bytes of texts to hold at a time, about.
    """
    repeated = without_events = html = cut = 0
    parts: list[_TextPart] = []
    for rows in raw.partitions():
        repeated += rows.height - rows["item_id"].n_unique()
        rows = rows.sort("item_id")
        places = _places(item_ids, rows["item_id"])
        without_events += rows.filter(places.is_null())["item_id"].n_unique()
        wanted = rows.with_columns(places).filter(places.is_not_null())
        best = best_texts(wanted, "place", max_chars).sort("place")
        html += int(best["html"].sum())
        cut += int(best["cut"].sum())
        parts.append(_TextPart.write(path.with_suffix(f".{len(parts)}.part"), best))
    empty = 0
    with StringTableWriter(path) as writer:
        for texts in _in_order(parts, len(item_ids), most):
            empty += int((texts == "").sum())
            writer.add(texts)
    for part in parts:
        part.path.unlink()
    return TextCounts(empty, html, cut, without_events, repeated)


def _places(item_ids: pl.Series, wanted: pl.Series) -> pl.Series:
    """Where ids stand among the sorted item_ids, Int32 `place` [n]; null if they do not.

    By bisection: a join would make a table of all item_ids for each partition.
    """
    at = item_ids.search_sorted(wanted).cast(pl.Int32)
    found = item_ids[at.clip(upper_bound=len(item_ids) - 1)] == wanted
    return at.set(~found, None).alias("place")


@dataclass(frozen=True)
class _TextPart:
    """Some items' texts in a file, and their places: int32 [n], increasing."""

    path: Path
    places: NDArray[np.int32]
    chars: int

    @classmethod
    def write(cls, path: Path, best: pl.DataFrame) -> _TextPart:
        StringTable.of(best["text"]).save(path)
        return cls(path, best["place"].to_numpy().copy(), int(best["chars"].sum()))

    def between(self, first: int, last: int) -> pl.DataFrame:
        """The texts of the places first .. last - 1 that are here."""
        start, stop = np.searchsorted(self.places, [first, last])
        texts = StringTable.open(self.path).series(int(start), int(stop))
        return pl.DataFrame({"place": self.places[start:stop], "text": texts})


def _in_order(parts: list[_TextPart], n_items: int, most: int) -> Iterator[pl.Series]:
    size = sum(part.chars for part in parts) + 16 * n_items
    step = max(1, n_items * most // max(size, 1))
    for first in range(0, n_items, step):
        last = min(first + step, n_items)
        found = pl.concat([_NO_TEXTS, *(part.between(first, last) for part in parts)])
        every = pl.int_range(first, last, dtype=pl.Int32, eager=True).alias("place").to_frame()
        texts = every.join(found, on="place", how="left", maintain_order="left")["text"]
        yield texts.fill_null("")


_NO_TEXTS = pl.DataFrame(schema={"place": pl.Int32, "text": pl.String})
