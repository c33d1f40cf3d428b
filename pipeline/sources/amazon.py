"""How the editions of Amazon's reviews name their fields, and how their metadata are read.

2018  reviewerID, asin, overall, unixReviewTime (seconds); metadata asin, title, description.
      The edition of 2014 has the same fields; its metadata are Python dicts.
2023  user_id, parent_asin, rating, timestamp (milliseconds); metadata parent_asin, title, features,
      description
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.sources.events import item_parts, rating_column, text_columns
from pipeline.sources.json_lines import JSON_ENDINGS, first_objects, json_pieces, object_decoder
from pipeline.sources.tables import Part
from pipeline.sources.times import TimeUnit


@dataclass(frozen=True)
class Edition:
    """How one edition names its fields."""

    year: int
    user: str
    item: str
    time: str
    unit: TimeUnit
    rating: str
    text: tuple[str, ...]

    def is_review(self, fields: set[str]) -> bool:
        """Whether objects, or a table, with these fields are reviews of this edition."""
        return {self.user, self.item, self.time} <= fields

    def is_metadata(self, fields: set[str]) -> bool:
        """Whether objects with these fields are items of this edition."""
        return {self.item, "title"} <= fields and not {self.user, self.time} & fields

    def event_columns(self, min_rating: float | None) -> dict[str, str]:
        """The fields of the reviews to read: new name -> name in the file."""
        columns = {"user_id": self.user, "item_id": self.item, "timestamp": self.time}
        return columns | rating_column(self.rating, min_rating)


OF_2018 = Edition(
    2018, "reviewerID", "asin", "unixReviewTime", "s", "overall", ("title", "description")
)
OF_2023 = Edition(
    2023, "user_id", "parent_asin", "timestamp", "ms", "rating",
    ("title", "features", "description"),
)  # fmt: skip
EDITIONS = (OF_2018, OF_2023)


def metadata_parts(file: Path, edition: Edition) -> Iterator[Part]:
    """The items of a file of metadata, an object a line (.gz too); some editions' are Python dicts.

    Raises:
        ValueError: while reading, the file is damaged as a whole.
    """
    texts = text_columns(edition.text)
    columns = {"item_id": edition.item} | texts
    return item_parts(json_pieces(file, columns, decode=object_decoder()), list(texts))


def json_fields(file: Path) -> set[str]:
    """The names of all fields in the file's first objects."""
    return {name for row in first_objects(file) for name in row}


def metadata_among(files: tuple[Path, ...], edition: Edition) -> list[Path]:
    """Those of the files that hold an edition's metadata."""
    named = (file for file in files if file.name.endswith(JSON_ENDINGS))
    return [file for file in named if edition.is_metadata(json_fields(file))]
