"""One text for each item that is left: normalised, cut, and the best where there are several.

Of several texts for one id the longest stays, of equally long ones the first by alphabet:
whichever stands first in the file means nothing.
"""

from __future__ import annotations

import polars as pl

from pipeline.sources.text import cut_text, holds_markup, normalise_text


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
    raw = [text or "" for text in rows["text"].to_list()]
    whole = [normalise_text(text) for text in raw]
    clean = rows.select(
        key,
        pl.Series("text", [cut_text(text, max_chars) for text in whole], dtype=pl.String),
        pl.Series("html", [holds_markup(text) for text in raw], dtype=pl.Boolean),
        pl.Series("cut", [len(text) > max_chars for text in whole], dtype=pl.Boolean),
    ).with_columns(pl.col("text").str.len_chars().alias("chars"))
    if clean[key].is_duplicated().any():
        clean = clean.with_columns(pl.col("html", "cut").any().over(key))
        clean = clean.sort("chars", "text", descending=[True, False])
    return clean.unique(key, keep="first", maintain_order=True)
