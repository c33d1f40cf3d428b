"""The specification of preparing: the corpus in memory, with whole tables and joins.

What the product makes out of files, a part at a time, must be equal to what stands here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.cleaning import StepCounts
from pipeline.domain_report import DomainReport, LengthCounts, TextCounts, domain_report
from pipeline.domains import DomainConfig
from pipeline.item_texts import best_texts
from pipeline.row_keys import user_key
from pipeline.sources.registry import read_source
from pipeline.stable_hash import hash_text, hash_texts, mixed


@dataclass(frozen=True)
class ReferenceDomain:
    config: DomainConfig
    order: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    report: DomainReport


def reference_domain(config: DomainConfig, data_root: Path, seed: int = 0) -> ReferenceDomain:
    cleaning, source = config.cleaning, config.source
    raw = read_source(source, data_root).whole()
    users = raw.interactions["user_id"].unique()
    ranks = mixed(seed, hash_text(source.platform), hash_texts(users))
    most = len(users) if source.max_users is None else source.max_users
    chosen = users[np.argsort(ranks)[:most]].to_frame()
    sampled = raw.interactions.join(chosen, on="user_id", how="semi")
    distinct = sampled.unique() if raw.order == "time" else sampled
    longest = cleaning.max_history or raw.rows_read
    fitting = distinct.filter(pl.len().over("user_id") <= longest)
    least = max(cleaning.k_core, cleaning.min_history)
    left, rounds = reference_k_core(fitting, user_events=least, item_events=cleaning.k_core)
    steps = StepCounts(
        raw.interactions.height,
        sampled.height,
        distinct.height,
        fitting.height,
        left.height,
        rounds,
    )
    interactions = left.sort("user_id", "timestamp", "item_id")
    if raw.order == "sequence":
        number = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("timestamp")
        interactions = interactions.with_columns(number)
    needed = interactions.select(pl.col("item_id").unique().sort())
    best = best_texts(
        raw.items.join(needed, on="item_id", how="semi"), "item_id", cleaning.max_text_chars
    )
    joined = needed.join(best, on="item_id", how="left", maintain_order="left")
    items = joined.select("item_id", pl.col("text").fill_null(""))
    report = None
    if left.height:
        rejected: dict[str, int] = {}
        for row in raw.rejected:
            rejected[row.reason] = rejected.get(row.reason, 0) + 1
        report = domain_report(
            source.describe(),
            raw.order,
            rows_read=raw.rows_read,
            rejected=rejected,
            steps=steps,
            lengths=LengthCounts.of([interactions["user_id"].rle().struct["len"].to_numpy()]),
            n_items=items.height,
            texts=TextCounts(
                empty=int((items["text"] == "").sum()),
                html=int(joined["html"].sum()),
                cut=int(joined["cut"].sum()),
                without_events=raw.items.join(needed, on="item_id", how="anti")[
                    "item_id"
                ].n_unique(),
                repeated=raw.items.height - raw.items["item_id"].n_unique(),
            ),
        )
    return ReferenceDomain(config, raw.order, interactions, items, report)


def reference_k_core(
    interactions: pl.DataFrame, *, user_events: int, item_events: int
) -> tuple[pl.DataFrame, int]:
    before, rounds = -1, -1
    while interactions.height != before:
        before, rounds = interactions.height, rounds + 1
        interactions = interactions.filter(pl.len().over("user_id") >= user_events)
        interactions = interactions.filter(pl.len().over("item_id") >= item_events)
    return interactions, rounds


def reference_corpus(domains: Sequence[ReferenceDomain]) -> dict[str, Any]:
    """offsets, items, timestamps, user_keys, item_ids, texts, and the fingerprint."""
    starts = np.cumsum([0, *(domain.items.height for domain in domains)])
    events = pl.concat(
        _events(domain, int(start)) for domain, start in zip(domains, starts, strict=False)
    ).sort("user_key", "timestamp", "tie", "item")
    rows = events["user_key"].rle().struct.unnest()
    items = pl.concat(domain.items for domain in domains)
    infos = [
        {
            "name": d.config.name,
            "first_item": int(start),
            "n_items": d.items.height,
            "order": d.order,
            "platform": d.config.source.platform,
            "source": d.config.source.describe(),
        }
        for d, start in zip(domains, starts, strict=False)
    ]
    arrays = {
        "offsets": np.concatenate([[0], rows["len"].to_numpy().astype(np.int64).cumsum()]),
        "items": events["item"].to_numpy(),
        "timestamps": events["timestamp"].to_numpy(),
    }
    tables = {
        "user_keys": rows["value"].to_list(),
        "item_ids": items["item_id"].to_list(),
        "texts": items["text"].to_list(),
    }
    return {**arrays, **tables, "fingerprint": _fingerprint(infos, arrays, tables)}


def report_of(domain: ReferenceDomain) -> dict[str, Any]:
    return asdict(domain.report)


def _events(domain: ReferenceDomain, first_item: int) -> pl.DataFrame:
    events, platform = domain.interactions, domain.config.source.platform
    users = events["user_id"].unique()
    own = domain.config.name if domain.order == "sequence" else None
    keys = pl.DataFrame(
        {
            "user_id": users,
            "user_key": [user_key(platform, user, own) for user in users],
            "user_hash": mixed(hash_text(platform), hash_texts(users)),
        },
        schema_overrides={"user_key": pl.String, "user_hash": pl.UInt64},
    )
    items = domain.items.select(
        "item_id",
        (pl.int_range(pl.len(), dtype=pl.Int32) + first_item).alias("item"),
        pl.Series("item_hash", hash_texts(domain.items["item_id"]), dtype=pl.UInt64),
    )
    joined = events.join(keys, on="user_id").join(items, on="item_id")
    tie = mixed(
        joined["user_hash"].to_numpy(),
        hash_text(domain.config.name),
        joined["item_hash"].to_numpy(),
        joined["timestamp"].to_numpy().view(np.uint64),
    )
    return joined.select("user_key", "item", "timestamp", pl.Series("tie", tie, dtype=pl.UInt64))


def _fingerprint(infos: Any, arrays: dict[str, Any], tables: dict[str, list[str]]) -> str:
    digest = hashlib.sha256(json.dumps(infos, sort_keys=True, separators=(",", ":")).encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    for name, strings in tables.items():
        encoded = [string.encode("utf-8") for string in strings]
        lengths = np.array([len(string) for string in encoded], dtype=np.int64)
        table = hashlib.sha256(lengths.tobytes() + b"".join(encoded)).hexdigest()
        digest.update(f"{name} {table}".encode())
    return digest.hexdigest()
