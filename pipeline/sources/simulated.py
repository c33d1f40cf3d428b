"""The `simulated` format: one domain of an invented marketplace whose truth is known.

Domains with equal `seed` and `population` are shops of one marketplace: they share the people,
the people's tastes, and the words and laws that drive what is bought next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.options import SourceOptions

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

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """None: everything follows from the parameters."""
        return ()

    def describe(self) -> str:
        """The format, the catalogue and the seed."""
        return f"simulated {self.catalogue} (seed {self.seed})"
