"""The `amazon_reviews` format: raw reviews and metadata, one JSON object a line, 2018 or 2023.

2018  reviewerID, asin, overall, unixReviewTime (seconds); metadata asin, title, description
2023  user_id, parent_asin, rating, timestamp (milliseconds); metadata parent_asin, title, features,
      description

A file's first lines tell its edition.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.paths import resolve
from pipeline.sources.events import event_parts, item_parts, rating_column, text_columns
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.json_lines import first_objects, json_pieces
from pipeline.sources.options import MinRating, SourceOptions, existing_file
from pipeline.sources.tables import RawTables
from pipeline.sources.times import TimeUnit

_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


@dataclass(frozen=True)
class _Edition:
    """How one edition names its fields."""

    year: int
    user: str
    item: str
    time: str
    unit: TimeUnit
    rating: str
    text: tuple[str, ...]

    def is_review(self, fields: set[str]) -> bool:
        return {self.user, self.item, self.time} <= fields

    def is_metadata(self, fields: set[str]) -> bool:
        return {self.item, "title"} <= fields and not {self.user, self.time} & fields


_EDITIONS = (
    _Edition(
        2018, "reviewerID", "asin", "unixReviewTime", "s", "overall", ("title", "description")
    ),
    _Edition(
        2023, "user_id", "parent_asin", "timestamp", "ms", "rating",
        ("title", "features", "description"),
    ),
)  # fmt: skip


class AmazonReviewsConfig(SourceOptions):
    """One category's reviews, and the metadata of its items."""

    format: Literal["amazon_reviews"] = Field("amazon_reviews", description="this format's name")
    reviews: str = Field(
        description="file of reviews, an object a line (.gz too): absolute, or relative to the "
        "data root (HYDRAREC_DATA)"
    )
    metadata: str | None = Field(
        None, description="file of items, an object a line (.gz too); null: no texts"
    )
    min_rating: MinRating = None

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The reviews and, if there is one, the metadata, absolute."""
        names = (self.reviews,) if self.metadata is None else (self.reviews, self.metadata)
        return tuple(resolve(name, data_root) for name in names)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"amazon_reviews {Path(self.reviews).name}"


def read_amazon_reviews(config: AmazonReviewsConfig, data_root: Path) -> RawTables:
    """Read reviews as interactions and metadata as items.

    Raises:
        ValueError: a file is absent or of neither edition; while reading, it is damaged as a
            whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    edition = _edition_of(files[0])
    events = {"user_id": edition.user, "item_id": edition.item, "timestamp": edition.time}
    events |= rating_column(edition.rating, config.min_rating)
    texts = text_columns(edition.text)
    items = {"item_id": edition.item} | texts
    return RawTables(
        order="time",
        interactions=event_parts(
            json_pieces(files[0], events), edition.unit, min_rating=config.min_rating
        ),
        items=item_parts(json_pieces(files[1], items), list(texts)) if files[1:] else (),
    )


def _edition_of(file: Path) -> _Edition:
    fields = _fields(file)
    for edition in _EDITIONS:
        if edition.is_review(fields):
            return edition
    raise ValueError(
        f"{file} has the fields {', '.join(sorted(fields)) or 'of no object'}, expected reviews "
        "with reviewerID, asin, unixReviewTime (2018) or user_id, parent_asin, timestamp (2023); "
        "for other files use format table"
    )


def _fields(file: Path) -> set[str]:
    return {name for row in first_objects(file) for name in row}


def _recognise(sight: Sight) -> Guess | None:
    known = {file: _fields(file) for file in sight.files() if file.name.endswith(_ENDINGS)}
    for edition in _EDITIONS:
        reviews = [file for file, fields in known.items() if edition.is_review(fields)]
        if len(reviews) != 1:
            continue
        chosen = {"reviews": str(reviews[0])}
        items = [file for file, fields in known.items() if edition.is_metadata(fields)]
        if len(items) == 1:
            chosen["metadata"] = str(items[0])
        return Guess(chosen, f"{reviews[0].name} has the fields of the reviews of {edition.year}")
    return None


FORMAT = Format(
    config=AmazonReviewsConfig,
    read=read_amazon_reviews,
    summary="Amazon's raw reviews and metadata of 2018 or 2023, an object a line",
    recognise=_recognise,
)
