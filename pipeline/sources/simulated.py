"""The `simulated` format: one domain of an invented marketplace whose truth is known.

Domains with equal `seed` and `population` are shops of one marketplace: they share the people,
the people's tastes, and the words and laws that drive what is bought next.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from pipeline.sources.options import SourceOptions
from pipeline.sources.oracle import Oracle, item_id, user_id
from pipeline.sources.shop import Shop, make_shop, random_stream, simulate, title_words
from pipeline.sources.tables import RawTables
from pipeline.sources.vocabulary import MAKERS

# Part of every simulated source's fingerprint: raise it when the same config gives other data.
GENERATOR_VERSION = 1

CatalogueName = Literal["books", "games", "beauty", "garden", "instruments"]


class SimulatedConfig(SourceOptions):
    """One shop of the marketplace. All figures and laws are our choice [D]."""

    format: Literal["simulated"] = Field("simulated", description="this format's name")
    catalogue: CatalogueName = Field(description="what the shop sells: the words of its items")
    seed: int = Field(0, ge=0, description="seed of the marketplace: equal in all its shops")
    population: int = Field(
        3000, ge=2, description="people in the marketplace: equal in all its shops"
    )
    share: float = Field(0.5, gt=0, le=1, description="share of the people who buy in this shop")
    items: int = Field(300, ge=20, le=100_000, description="items on sale in this shop")
    mean_history: float = Field(
        10.0, ge=5, le=1000, description="mean number of purchases of a person in this shop"
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

    @model_validator(mode="after")
    def _somebody_buys(self) -> SimulatedConfig:
        if self.mean_history > self.items / 2:
            raise ValueError(
                f"mean_history {self.mean_history} is more than half of the {self.items} items, "
                "and nobody buys an item twice: lower it or raise items"
            )
        return self

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


def read_simulated(config: SimulatedConfig) -> RawTables:
    """Generate one shop; equal configs give equal tables."""
    oracle = simulated_oracle(config)
    bought = oracle.purchases
    item_ids = [item_id(config.catalogue, item) for item in range(config.items)]
    interactions = pl.DataFrame(
        {
            "user_id": [user_id(person) for person in bought.person.tolist()],
            "item_id": [item_ids[item] for item in bought.item.tolist()],
            "timestamp": bought.time,
        }
    )
    items = pl.DataFrame({"item_id": item_ids, "text": list(_titles(config, oracle.shop))})
    return RawTables(interactions, items, "time", interactions.height + items.height, ())


def simulated_oracle(config: SimulatedConfig) -> Oracle:
    """The truth behind `read_simulated(config)`."""
    shop = make_shop(config)
    return Oracle(shop, simulate(config, shop))


def _titles(config: SimulatedConfig, shop: Shop) -> Iterator[str]:
    """Titles as a shop would write them, for example

    `Cosy Fjord Cookbook for Beginners by Harrow, No. 12`.
    """
    stream = random_stream(config.seed, config.catalogue, "titles")
    for number, (theme, style, audience, kind) in enumerate(title_words(config, shop), start=1):
        maker = MAKERS[stream.integers(len(MAKERS))]
        forms = (
            f"{style} {theme} {kind} {audience} by {maker}, No. {number}",
            f"{maker} {theme} {kind}, {style}, {audience} (No. {number})",
            f"{theme} {kind} {audience}: {style} Edition {number} by {maker}",
        )
        yield forms[stream.integers(len(forms))]
