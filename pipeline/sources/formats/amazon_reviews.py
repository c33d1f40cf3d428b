"""The `amazon_reviews` format: raw reviews and metadata, one JSON object a line, 2018 or 2023.

A file's first lines tell its edition; `pipeline.sources.amazon` has the fields of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.amazon import (
    EDITIONS,
    Edition,
    json_fields,
    metadata_among,
    metadata_parts,
)
from pipeline.sources.events import event_parts
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.json_lines import JSON_ENDINGS, json_pieces
from pipeline.sources.options import MinRating, SourceOptions, existing_file, given_paths
from pipeline.sources.tables import RawTables


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
        return given_paths(data_root, self.reviews, self.metadata)

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
    reviews = json_pieces(files[0], edition.event_columns(config.min_rating))
    return RawTables(
        order="time",
        interactions=event_parts(reviews, edition.unit, min_rating=config.min_rating),
        items=metadata_parts(files[1], edition) if files[1:] else (),
    )


def _edition_of(file: Path) -> Edition:
    fields = json_fields(file)
    for edition in EDITIONS:
        if edition.is_review(fields):
            return edition
    raise ValueError(
        f"{file} has the fields {', '.join(sorted(fields)) or 'of no object'}, expected reviews "
        "with reviewerID, asin, unixReviewTime (2018) or user_id, parent_asin, timestamp (2023); "
        "for other files use format table"
    )


def _recognise(sight: Sight) -> Guess | None:
    named = [file for file in sight.files() if file.name.endswith(JSON_ENDINGS)]
    for edition in EDITIONS:
        reviews = [file for file in named if edition.is_review(json_fields(file))]
        if len(reviews) != 1:
            continue
        chosen = {"reviews": str(reviews[0])}
        items = metadata_among(sight.files(), edition)
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
