"""Clean one domain: raw tables in, a checked and counted Domain out, on disk all the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.cleaning import (
    CleanEvents,
    CleaningConfig,
    CleaningRules,
    StepCounts,
    clean_events,
)
from pipeline.coding import Coding
from pipeline.domain_report import (
    DomainReport,
    LengthCounts,
    TextCounts,
    domain_report,
    why_empty,
)
from pipeline.finished_shards import Finish
from pipeline.item_texts import write_texts
from pipeline.quarantine import Quarantine
from pipeline.row_keys import user_ids
from pipeline.shards import Shard
from pipeline.sources import SourceConfig
from pipeline.sources.options import checked_name
from pipeline.sources.registry import read_source
from pipeline.sources.tables import Order, Part, RawTables, no_interactions
from pipeline.spill import WORKING_BYTES, Spill, gathered
from pipeline.stable_hash import hash_text, hash_texts
from pipeline.string_table import StringTable

Tell = Callable[[str], None]

_ITEM_IDS, _TEXTS = "item_ids.arrow", "texts.arrow"


class DomainConfig(BaseModel):
    """One domain: its name, where its data come from, what is kept of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the domain's name: a-z, 0-9, `_` and `-`; unique in a run")
    source: SourceConfig = Field(description="where the data come from")
    cleaning: CleaningConfig = Field(
        default_factory=lambda: CleaningConfig.model_validate({}),
        description="what is kept of the data",
    )

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, value: str) -> str:
        return checked_name(value, "the domain name")


@dataclass(frozen=True)
class Domain:
    """One clean domain in a folder.

    shards: all events. Users by key; a user's events by time, ties by hash (see `corpus`); items
        by their place among the ids. In `order: sequence` the time is the event's number in the
        user's row, from 0.
    item_ids: file of a StringTable: exactly the items that have interactions, sorted.
    texts: the same of their texts, normalised, "" if none.
    """

    name: str
    platform: str
    order: Order
    shards: tuple[Shard, ...] = field(repr=False)
    item_ids: Path = field(repr=False)
    texts: Path = field(repr=False)
    report: DomainReport

    @property
    def sequence_domain(self) -> str | None:
        """The domain's name if its events have no times."""
        return self.name if self.order == "sequence" else None

    @property
    def items(self) -> pl.DataFrame:
        """item_id String, text String, sorted by item_id: all in memory, for a small domain."""
        tables = {"item_id": self.item_ids, "text": self.texts}
        return pl.DataFrame(
            {
                name: pl.Series(list(StringTable.open(path)), dtype=pl.String)
                for name, path in tables.items()
            }
        )

    @property
    def interactions(self) -> pl.DataFrame:
        """user_id String, item_id String, timestamp Int64, sorted by all three: as `items`."""
        ids = self.items["item_id"]
        tables = [no_interactions()]
        for shard in self.shards:
            keys = shard.keys().series(0, shard.n_users)
            users = user_ids(self.platform, keys, self.sequence_domain)
            rows = np.repeat(np.arange(len(users)), shard.column("lengths"))
            events = {
                "user_id": users[rows],
                "item_id": ids[shard.column("items")],
                "timestamp": shard.column("timestamps"),
            }
            tables.append(pl.DataFrame(events))
        return pl.concat(tables).sort("user_id", "timestamp", "item_id")


def build_domain(
    config: DomainConfig,
    data_root: Path,
    quarantine_dir: Path,
    work: Path,
    *,
    seed: int = 0,
    tell: Tell = lambda what: None,
) -> Domain:
    """Read and clean one domain: `clean_domain` of what its source gives.

    Args:
        config: the domain.
        data_root: the folder that relative paths start from.
        quarantine_dir: see `clean_domain`, as for all that follow.
        work: as said.
        seed: as said.
        tell: as said.

    Raises:
        ValueError: a file or column is absent; and as `clean_domain` does.
    """
    raw = read_source(config.source, data_root)
    return clean_domain(config, raw, quarantine_dir, work, seed=seed, tell=tell)


def clean_domain(
    config: DomainConfig,
    raw: RawTables,
    quarantine_dir: Path,
    work: Path,
    *,
    seed: int = 0,
    tell: Tell = lambda what: None,
    working_bytes: int = WORKING_BYTES,
) -> Domain:
    """Clean one domain's tables, which are drawn once.

    Rejected rows go to quarantine_dir/DOMAIN.jsonl, which is written only if there are any.

    Args:
        config: the domain.
        raw: what its source gives.
        quarantine_dir: made if absent.
        work: where work/DOMAIN is made, in which the domain lies; the caller removes it.
        seed: of the choice of users under `max_users`; one for all domains of a run.
        tell: is told what is being done, many times.
        working_bytes: of the tables that are worked on at a time; changes nothing else.

    Raises:
        ValueError: a file is damaged as a whole, more rows are bad than max_bad_rows, or nothing
            is left after cleaning; the message says what, where and what to do.
    """
    folder = work / config.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    items = Coding()
    events = Spill(folder / "events", "user_id", working_bytes)
    raw_items = Spill(folder / "raw_items", "item_id", working_bytes)
    with Quarantine(quarantine_dir, config.name, config.cleaning.max_bad_rows) as quarantine:
        for rows in gathered(_taken(raw.interactions, quarantine, tell), working_bytes):
            code = pl.Series("item", items.codes(rows["item_id"]))
            events.add(rows.select("user_id", code, "timestamp"))
        for rows in gathered(_taken(raw.items, quarantine, tell), working_bytes):
            raw_items.add(rows)
    clean = clean_events(_rules(config, raw.order, seed), events, folder / "clean", tell)
    events.remove()
    if clean.steps.left == 0:
        described = config.source.describe()
        refused = quarantine.counts()
        raise ValueError(why_empty(config.name, described, config.cleaning, clean.steps, refused))
    item_ids, place = _left(items, clean)
    del items  # as large as the ids, which stay
    StringTable.of(item_ids).save(folder / _ITEM_IDS)
    tell("texts")
    most_chars = config.cleaning.max_text_chars
    texts = write_texts(raw_items, item_ids, most_chars, folder / _TEXTS, working_bytes)
    raw_items.remove()
    tell("events in order")
    finish = Finish(raw.order == "sequence", hash_text(config.name), place, hash_texts(item_ids))
    shards = finish.all(clean, folder / "shards")
    return Domain(
        name=config.name,
        platform=config.source.platform,
        order=raw.order,
        shards=shards,
        item_ids=folder / _ITEM_IDS,
        texts=folder / _TEXTS,
        report=_report(config, raw.order, quarantine, clean.steps, shards, len(item_ids), texts),
    )


def _rules(config: DomainConfig, order: Order, seed: int) -> CleaningRules:
    return CleaningRules(
        cleaning=config.cleaning,
        platform=config.source.platform,
        sequence_domain=config.name if order == "sequence" else None,
        max_users=config.source.max_users,
        seed=seed,
    )


def _report(
    config: DomainConfig,
    order: Order,
    quarantine: Quarantine,
    steps: StepCounts,
    shards: Sequence[Shard],
    n_items: int,
    texts: TextCounts,
) -> DomainReport:
    return domain_report(
        config.source.describe(),
        order,
        rows_read=quarantine.rows_read,
        rejected=quarantine.counts(),
        steps=steps,
        lengths=LengthCounts.of(shard.column("lengths") for shard in shards),
        n_items=n_items,
        texts=texts,
    )


def _taken(parts: Iterable[Part], quarantine: Quarantine, tell: Tell) -> Iterator[pl.DataFrame]:
    """The parts' good rows; the bad ones go to the quarantine."""
    for part in parts:
        quarantine.take(part.rows_read, part.rejected)
        tell(f"{quarantine.rows_read:,} rows read")
        yield part.rows


def _left(items: Coding, clean: CleanEvents) -> tuple[pl.Series, NDArray[np.int32]]:
    """The ids of the items left, sorted, and the place of each code among them, int32 [codes]."""
    ids = items.strings()
    codes = np.flatnonzero(clean.item_counts)
    order = ids[codes].arg_sort().to_numpy()
    place = np.full(len(ids), -1, dtype=np.int32)
    place[codes[order]] = np.arange(len(codes), dtype=np.int32)
    return ids[codes[order]], place
