"""The `simulated` format: one domain of an invented marketplace whose truth is known.

Domains with equal `seed` are shops of one marketplace. How much they share is a parameter:
`user_overlap` of their people, `taste_overlap` of what drives what is bought next.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeGuard

import polars as pl
from pydantic import Field, field_validator, model_validator

from pipeline.sources.options import SourceOptions, checked_name
from pipeline.sources.oracle import Oracle
from pipeline.sources.people import FEWEST_PURCHASES, Buyers
from pipeline.sources.pieces import PART_ROWS
from pipeline.sources.purchases import Purchases, simulate
from pipeline.sources.shop import make_shop
from pipeline.sources.tables import Part, RawTables
from pipeline.sources.titles import titles
from pipeline.sources.values import item_values

# Part of every simulated source's fingerprint: raise it when the same config gives other data.
GENERATOR_VERSION = 2

# The oracle keeps every purchase and looks at every item for every buyer: what is bearable.
_ORACLE_PURCHASES, _ORACLE_SCORES = 5e6, 2e9


class SimulatedConfig(SourceOptions):
    """One shop of the marketplace. All figures and laws are our choice [D]."""

    format: Literal["simulated"] = Field("simulated", description="this format's name")
    catalogue: str = Field(
        description="what the shop sells: books, games, beauty, garden or instruments, or any "
        "other name, for which words are composed"
    )
    seed: int = Field(0, ge=0, description="seed of the marketplace: equal in all its shops")
    population: int = Field(
        3000, ge=2, le=100_000_000, description="people who may buy: equal in all shops"
    )
    share: float = Field(0.5, gt=0, le=1, description="share of the people who buy in this shop")
    user_overlap: float = Field(
        1.0, ge=0, le=1, description="share of the buyers who are the marketplace's people, known "
        "in its other shops; the rest are this shop's alone"
    )  # fmt: skip
    taste_overlap: float = Field(
        1.0, ge=0, le=1, description="share of the themes, styles and audiences that are the "
        "marketplace's: their words, who likes them, what follows them; the rest are drawn anew "
        "for this shop, and at 0 nothing learned in another shop holds here"
    )  # fmt: skip
    items: int = Field(300, ge=20, le=10_000_000, description="items on sale in this shop")
    mean_history: float = Field(
        10.0, ge=5, le=10_000, description="mean number of purchases of a person in this shop"
    )
    length_tail: float | None = Field(
        None, gt=1, le=10, description="exponent of a Pareto law of history lengths: 1.2 gives a "
        "few people thousands of purchases; null: a geometric law"
    )  # fmt: skip
    longest_history: int = Field(
        10_000, ge=5, le=100_000, description="most purchases of a person in this shop"
    )
    zipf: float = Field(
        0.7, ge=0, le=3, description="exponent of the popularity law: weight = rank ** -zipf"
    )
    taste: float = Field(
        2.0, ge=0, le=10, description="how strongly a person's taste drives a choice (log-odds)"
    )
    sequence: float = Field(
        3.0, ge=0, le=10, description="how strongly the last purchase drives the next (log-odds)"
    )
    drift: float = Field(
        0.6, ge=0, le=1, description="share of the popularity that has moved on by the last day"
    )
    cold_items: float = Field(
        0.0, ge=0, le=0.5, description="share of the items that are sold only from cold_from on"
    )
    cold_from: float = Field(
        0.8, ge=0, le=1, description="when cold items come, as a share of the whole time"
    )
    dropped_words: float = Field(
        0.0, ge=0, le=1, description="share of the titles' words that are left out"
    )
    shuffled_titles: float = Field(
        0.0, ge=0, le=1, description="share of the titles whose words stand in any order"
    )
    empty_titles: float = Field(0.0, ge=0, le=1, description="share of the items without a title")

    @field_validator("catalogue")
    @classmethod
    def _catalogue_is_a_name(cls, value: str) -> str:
        return checked_name(value, "catalogue")

    @model_validator(mode="after")
    def _somebody_buys(self) -> SimulatedConfig:
        if self.mean_history > self.most_purchases:
            raise ValueError(
                f"mean_history {self.mean_history} is more than {self.most_purchases}, the lesser "
                f"of longest_history and half of the {self.items - self.n_cold} items that are "
                "sold from the start, and nobody buys an item twice: lower it, or raise items or "
                "longest_history"
            )
        return self

    @property
    def n_cold(self) -> int:
        """Items that are sold only from `cold_from` on."""
        return round(self.cold_items * self.items)

    @property
    def most_purchases(self) -> int:
        """Most purchases of one person: half of what is sold from the start, to leave a choice."""
        half = (self.items - self.n_cold) // 2
        return max(FEWEST_PURCHASES, min(self.longest_history, half))

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """None: everything follows from the parameters."""
        return ()

    def describe(self) -> str:
        """The format, the catalogue and the seed."""
        return f"simulated {self.catalogue} (seed {self.seed})"


def marketplace(seed: int = 0) -> dict[str, SimulatedConfig]:
    """The embedded default: two large and three small shops with shared people, by name.

    About 3,000 people, 1,500 items and 45,000 interactions; on two CPU cores every item can be
    encoded by a language model of 135M parameters within minutes.
    """
    large = {"share": 0.6, "items": 420, "mean_history": 11.0}
    small = {"share": 0.18, "items": 220, "mean_history": 7.0}
    sizes = {"books": large, "games": large, "beauty": small, "garden": small, "instruments": small}
    return {
        name: SimulatedConfig.model_validate({"catalogue": name, "seed": seed, **size})
        for name, size in sizes.items()
    }


def read_simulated(config: SimulatedConfig, part_rows: int = PART_ROWS) -> RawTables:
    """Generate one shop, lazily; equal configs give equal tables, cut into parts as one likes.

    Memory is bounded by a part and the items, whatever the population.
    """
    return RawTables("time", _interaction_parts(config, part_rows), _item_parts(config, part_rows))


def _interaction_parts(config: SimulatedConfig, part_rows: int) -> Iterator[Part]:
    """By person and time."""
    for people, bought in simulate(make_shop(config), part_rows):
        for rows in _interactions(config, people, bought).iter_slices(part_rows):
            yield Part(rows, rows.height)


def _item_parts(config: SimulatedConfig, part_rows: int) -> Iterator[Part]:
    values = item_values(config)
    for first in range(0, config.items, part_rows):
        last = min(first + part_rows, config.items)
        numbers = pl.int_range(first, last, dtype=pl.Int64, eager=True).alias("item")
        texts = pl.Series("text", titles(config, values, first, last))
        yield Part(numbers.to_frame().select(_item_id(config), texts), last - first)


def has_oracle(source: SourceOptions) -> TypeGuard[SimulatedConfig]:
    """Whether a source's truth is known, and small enough to rank by.

    The law is known at any size, but ranking by it keeps every purchase in memory and takes
    buyers * items steps: up to 5 million purchases and 2 billion steps (about a minute).
    """
    if not isinstance(source, SimulatedConfig):
        return False
    n_buyers = source.population * source.share
    purchases, scores = n_buyers * source.mean_history, n_buyers * source.items
    return purchases <= _ORACLE_PURCHASES and scores <= _ORACLE_SCORES


def simulated_oracle(config: SimulatedConfig) -> Oracle:
    """The truth behind `read_simulated(config)`.

    Raises:
        ValueError: the shop is too large for one: see `has_oracle`.
    """
    if not has_oracle(config):
        raise ValueError(
            f"{config.describe()} is too large for an oracle: {config.population:,} people, share "
            f"{config.share}, mean_history {config.mean_history}, {config.items:,} items, expected "
            f"at most {_ORACLE_PURCHASES:,.0f} purchases and {_ORACLE_SCORES:,.0f} buyers * items; "
            "make it smaller, or ask has_oracle first"
        )
    shop = make_shop(config)
    return Oracle(shop, Purchases.concatenate(bought for _, bought in simulate(shop)))


def _interactions(config: SimulatedConfig, people: Buyers, bought: Purchases) -> pl.DataFrame:
    own = pl.Series("own", ~people.shared).gather(
        pl.Series(people.person).search_sorted(pl.Series(bought.person))
    )
    user = pl.format("u{}", pl.col("person").cast(pl.String).str.zfill(6))
    return pl.select(
        person=pl.lit(pl.Series(bought.person)),
        own=pl.lit(own),
        item=pl.lit(pl.Series(bought.item)),
        timestamp=pl.lit(pl.Series(bought.time)),
    ).select(
        pl.when("own").then(user + f"-{config.catalogue}").otherwise(user).alias("user_id"),
        _item_id(config),
        "timestamp",
    )


def _item_id(config: SimulatedConfig) -> pl.Expr:
    return pl.format(f"{config.catalogue}-{{}}", pl.col("item").cast(pl.String).str.zfill(5)).alias(
        "item_id"
    )
