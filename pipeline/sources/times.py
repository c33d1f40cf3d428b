"""Texts to unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import polars as pl

TimeUnit = Literal["s", "ms", "iso"]


def unix_seconds(texts: pl.Series, unit: TimeUnit) -> pl.Series:
    """Unix seconds as Int64, rounded down; null where a text is no time.

    Args:
        texts: String.
        unit: `s` or `ms` (whole or decimal numbers), or `iso` (ISO 8601; UTC if it names no zone).
    """
    if unit == "iso":
        distinct = texts.unique()
        seconds = pl.Series([_from_iso(text) for text in distinct], dtype=pl.Int64)
        return texts.replace_strict(distinct, seconds, default=None, return_dtype=pl.Int64)
    whole = texts.cast(pl.Int64, strict=False)
    divisor = 1000 if unit == "ms" else 1
    if whole.null_count() == 0:
        return whole // divisor if divisor > 1 else whole
    # Beyond 2**53 a float64 is no longer exact; such times are refused by their range anyway.
    decimal = texts.cast(pl.Float64, strict=False)
    decimal = decimal.set(~decimal.is_finite() | (decimal.abs() > 2**53), None)
    return (whole // divisor).zip_with(
        whole.is_not_null(), (decimal / divisor).floor().cast(pl.Int64, strict=False)
    )


def _from_iso(text: str | None) -> int | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() // 1)
