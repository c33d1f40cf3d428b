"""The `hllm` format: the pair of CSV files that HLLM and PixelRec read.

dataset/NAME.csv      item_id,user_id,timestamp
information/NAME.csv  item_id and title, tag, description, of which tag may be absent
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.sources.column_map import ColumnMap, guessed_unit
from pipeline.sources.columns import column_names
from pipeline.sources.delimited import CSV, delimited_pieces
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.mapped_tables import mapped_tables, time_example
from pipeline.sources.options import SourceOptions, existing_file, given_paths
from pipeline.sources.tables import RawTables
from pipeline.sources.times import TimeUnit

_EVENTS = ("item_id", "user_id", "timestamp")
_TEXTS = ("title", "tag", "description")


class HllmConfig(SourceOptions):
    """One data set's interactions and its items' information."""

    format: Literal["hllm"] = Field("hllm", description="this format's name")
    interactions: str = Field(
        description="dataset/NAME.csv with item_id,user_id,timestamp (.gz too): absolute, or "
        "relative to the data root (HYDRAREC_DATA)"
    )
    information: str | None = Field(
        None, description="information/NAME.csv with the items' texts; null: no texts"
    )
    timestamp_unit: TimeUnit = Field("s", description="unit of the times, as in format table")
    text: tuple[str, ...] = Field(
        ("title", "description"),
        min_length=1,
        description="columns of the information that make an item's text, in this order",
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The interactions and, if there is one, the information, absolute."""
        return given_paths(data_root, self.interactions, self.information)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"hllm {Path(self.interactions).name}"


def read_hllm(config: HllmConfig, data_root: Path) -> RawTables:
    """Read interactions and, if there is a second file, items.

    Raises:
        ValueError: a file is absent; while reading, a column is absent or a file damaged as a
            whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    columns = ColumnMap.model_validate(
        {"timestamp_unit": config.timestamp_unit, "text": config.text}
    )
    interactions, *information = (partial(delimited_pieces, file, layout=CSV) for file in files)
    return mapped_tables(columns, None, interactions, *information)


def _recognise(sight: Sight) -> Guess | None:
    found = [file for file in _candidates(sight) if _is_pair(file)]
    if len(found) > 1:
        raise ValueError(
            f"{sight.path} holds the pairs of {len(found)} data sets, and each is a domain: give "
            f"one of dataset/{', dataset/'.join(file.name for file in found)}"
        )
    if not found:
        return None
    (file,) = found
    fields: dict[str, object] = {"interactions": str(file), "information": str(_information(file))}
    example = time_example(_EVENTS, partial(delimited_pieces, file, layout=CSV))
    if example is not None and (unit := guessed_unit(example)) != "s":
        fields["timestamp_unit"] = unit
    names = column_names(_information(file))
    if (text := [name for name in _TEXTS if name in names]) != ["title", "description"]:
        fields["text"] = text
    return Guess(fields, f"{file.name} and the items' titles in information/ are HLLM's pair")


def _candidates(sight: Sight) -> list[Path]:
    """The CSV files that may hold interactions: the one file, or those in the folder `dataset`."""
    folder = sight.path
    if folder.is_dir() and (folder / "dataset").is_dir():
        folder = folder / "dataset"
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    return [file for file in files if file.name.endswith((".csv", ".csv.gz")) and file.is_file()]


def _is_pair(file: Path) -> bool:
    items = _information(file)
    if not items.is_file() or column_names(file) != list(_EVENTS):
        return False
    return {"item_id", "title"} <= set(column_names(items))


def _information(file: Path) -> Path:
    """Where HLLM keeps the items of its interactions."""
    return file.parent.parent / "information" / file.name


FORMAT = Format(
    config=HllmConfig,
    read=read_hllm,
    summary="HLLM's and PixelRec's pair dataset/NAME.csv, information/NAME.csv",
    recognise=_recognise,
)
