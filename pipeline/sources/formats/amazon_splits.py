"""The `amazon_splits` format: Amazon Reviews 2023 as its authors publish it for benchmarks, CSV.

CATEGORY.train.csv, .valid.csv, .test.csv   user_id,parent_asin,rating,timestamp (milliseconds)
CATEGORY.csv (the folder rating_only)       the same columns, before any split

The folders last_out_w_his and timestamp_w_his add a column `history`, which repeats what stands in
the files anyway and is not read. The parts are put together: splits are made later, by one rule for
all domains, so the published split is not the one that is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.sources.amazon import OF_2023, metadata_among, metadata_parts
from pipeline.sources.columns import column_names
from pipeline.sources.delimited import CSV, delimited_pieces
from pipeline.sources.events import event_parts
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.options import MinRating, SourceOptions, existing_file, given_paths
from pipeline.sources.pieces import Piece
from pipeline.sources.tables import RawTables

_PARTS = ("train", "valid", "test")
_PART_NAME = re.compile(r"(?P<category>.+)\.(?:train|valid|test)(?P<ending>\.csv(\.gz)?)")


class AmazonSplitsConfig(SourceOptions):
    """One category's interactions in all parts of a published split, and its items' metadata."""

    format: Literal["amazon_splits"] = Field("amazon_splits", description="this format's name")
    interactions: tuple[str, ...] = Field(
        min_length=1,
        description="a category's files (.csv, .csv.gz): its train, valid and test, all three, or "
        "the one of rating_only: absolute, or relative to the data root (HYDRAREC_DATA)",
    )
    metadata: str | None = Field(
        None, description="the raw metadata, an object a line (.gz too); null: no texts"
    )
    min_rating: MinRating = None

    @field_validator("interactions")
    @classmethod
    def _no_part_is_left_out(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        given = [Path(name) for name in value]
        for file in given:
            if missing := [part.name for part in _siblings(file) if part not in given]:
                raise ValueError(
                    f"interactions has {file.name} but not {' and '.join(missing)}: list all three "
                    "parts, since splits are made later and a part that is left out is lost"
                )
        return value

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The parts and, if there is one, the metadata, absolute."""
        return given_paths(data_root, *self.interactions, self.metadata)

    def describe(self) -> str:
        """The format and the first file's name."""
        return f"amazon_splits {Path(self.interactions[0]).name}"


def read_amazon_splits(config: AmazonSplitsConfig, data_root: Path) -> RawTables:
    """Read the parts as one domain's interactions, and metadata as items.

    Raises:
        ValueError: a file is absent; while reading, it is damaged as a whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    parts, metadata = files[: len(config.interactions)], files[len(config.interactions) :]
    return RawTables(
        order="time",
        interactions=event_parts(
            _pieces(parts, config.min_rating), OF_2023.unit, min_rating=config.min_rating
        ),
        items=metadata_parts(metadata[0], OF_2023) if metadata else (),
    )


def _pieces(parts: Iterable[Path], min_rating: float | None) -> Iterator[Piece]:
    columns = OF_2023.event_columns(min_rating)
    return chain.from_iterable(delimited_pieces(part, columns, CSV) for part in parts)


def _siblings(file: Path) -> tuple[Path, ...]:
    """All parts of the split that a file belongs to; none if it is no part of one."""
    found = _PART_NAME.fullmatch(file.name)
    if found is None:
        return ()
    category, ending = found["category"], found["ending"]
    return tuple(file.with_name(f"{category}.{part}{ending}") for part in _PARTS)


def _recognise(sight: Sight) -> Guess | None:
    named = [file for file in sight.files() if file.name.endswith((".csv", ".csv.gz"))]
    ours = [file for file in named if _is_ours(file)]
    # One category is one domain; a file that was named stands for its whole split.
    domains = {_siblings(file) or (file,) for file in ours}
    if len(domains) > 1:
        raise ValueError(
            f"{sight.path} holds {len(domains)} categories or splits of Amazon Reviews 2023, and "
            f"each is a domain: give one of its files, such as {ours[0].name}"
        )
    if not domains:
        return None
    (interactions,) = domains
    fields: dict[str, object] = {"interactions": [str(file) for file in interactions]}
    items = metadata_among(sight.files(), OF_2023)
    if len(items) == 1:
        fields["metadata"] = str(items[0])
    return Guess(fields, f"{ours[0].name} has the columns of the published splits of 2023")


def _is_ours(file: Path) -> bool:
    names = column_names(file)
    return names[:4] == ["user_id", "parent_asin", "rating", "timestamp"] and set(names[4:]) <= {
        "history"
    }


FORMAT = Format(
    config=AmazonSplitsConfig,
    read=read_amazon_splits,
    summary="Amazon Reviews 2023's CSV files: CATEGORY.train.csv, valid, test",
    recognise=_recognise,
)
