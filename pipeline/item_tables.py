"""The item tables of all domains as one catalogue: what a refresh of the vectors starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from item_llm.item_keys import Catalogue
from pipeline.config import RunConfig
from pipeline.domains import DomainConfig
from pipeline.item_texts import best_texts
from pipeline.quarantine import Quarantine
from pipeline.sources.registry import read_source
from pipeline.sources.tables import no_items


def read_catalogue(config: RunConfig, data_root: Path, quarantine: Path) -> Catalogue:
    """Read every domain's item table; texts are cleaned as a run cleans them.

    Interactions are not read: an item counts from the day it is listed.

    Args:
        config: its domains.
        data_root: the folder that relative paths start from.
        quarantine: folder for refused rows, DOMAIN.jsonl; made where there are any.

    Raises:
        ValueError: a file cannot be read, or more rows are bad than max_bad_rows.
    """
    tables = [_items(domain, data_root, quarantine) for domain in config.domains]
    sizes = [table.height for table in tables]
    items = pl.concat(tables)
    return Catalogue(
        domains=tuple(domain.name for domain in config.domains),
        of=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        ids=items["item_id"].to_list(),
        texts=items["text"].to_list(),
    )


def _items(config: DomainConfig, data_root: Path, quarantine: Path) -> pl.DataFrame:
    """item_id String, text String (clean, "" if none), sorted by id, each once."""
    cleaning, parts = config.cleaning, [no_items()]
    with Quarantine(quarantine, config.name, cleaning.max_bad_rows) as refused:
        for part in read_source(config.source, data_root).items:
            refused.take(part.rows_read, part.rejected)
            parts.append(part.rows)
    texts = best_texts(pl.concat(parts), "item_id", cleaning.max_text_chars)
    return texts.select("item_id", "text").sort("item_id")
