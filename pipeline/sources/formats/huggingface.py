"""The `huggingface` format: tables of Hugging Face `datasets`, from a folder or from the hub.

A folder is what `save_to_disk` made. The hub is asked only where a config names it. Parquet files
need none of this: format `table` reads them, and folders of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.sources.column_map import ColumnMap
from pipeline.sources.format import Format, Guess, Sight
from pipeline.sources.hugging_face import (
    hub_tables,
    is_saved,
    pieces_of,
    saved_files,
    saved_tables,
)
from pipeline.sources.mapped_tables import Candidate, guessed_tables, mapped_tables
from pipeline.sources.options import MinRating, SourceOptions
from pipeline.sources.pieces import Piece
from pipeline.sources.tables import RawTables
from pipeline.storage.local_copy import on_this_machine
from pipeline.whole_files import content_hash, file_sha256


class DatasetTable(BaseModel):
    """One table: a saved folder's, or one of the hub's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(
        None,
        description="folder that save_to_disk made: absolute, or relative to the data root "
        "(HYDRAREC_DATA)",
    )
    hub: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="OWNER/NAME of a dataset on the Hugging Face hub, instead of `path`",
    )
    revision: str | None = Field(
        None,
        pattern="^[0-9a-f]{40}$",
        description="the hub's commit (40 hex digits), so that a run can be made again",
    )
    subset: str | None = Field(None, description="which configuration of a dataset on the hub")
    split: str | None = Field(
        None, description="one of its splits; null: all, one after another, since ours are our own"
    )

    @model_validator(mode="after")
    def _one_place(self) -> DatasetTable:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either `path`, a saved folder, or `hub`, the name of a dataset")
        if self.hub is not None and self.revision is None:
            raise ValueError(
                f"hub {self.hub} has no `revision`: give the commit that its page on the hub shows"
            )
        if self.path is not None and (self.revision or self.subset):
            raise ValueError("revision and subset are for `hub`: leave them out with `path`")
        return self

    def folder(self, data_root: Path) -> Path | None:
        """The saved folder, absolute; None: it is the hub's."""
        return None if self.path is None else on_this_machine(self.path, data_root)

    def pieces(self, data_root: Path, columns: Mapping[str, str]) -> Iterator[Piece]:
        """Some of the table's columns, a batch of rows at a time."""
        folder = self.folder(data_root)
        if folder is not None:
            tables, name = saved_tables(_saved(folder)), folder
        else:
            assert self.hub is not None
            assert self.revision is not None
            tables, name = hub_tables(self.hub, self.subset, self.revision), Path(self.hub)
        yield from pieces_of(_of_split(tables, self.split, name), name, columns)


class HuggingFaceConfig(SourceOptions):
    """Interactions and items as tables of Hugging Face `datasets`."""

    format: Literal["huggingface"] = Field("huggingface", description="this format's name")
    interactions: DatasetTable = Field(description="the table of interactions")
    items: DatasetTable | None = Field(None, description="the table of items; null: no texts")
    columns: ColumnMap = Field(
        default_factory=lambda: ColumnMap.model_validate({}), description="which column is what"
    )
    min_rating: MinRating = None

    def tables(self) -> tuple[DatasetTable, ...]:
        """The interactions and, if there is one, the items table."""
        return (self.interactions,) if self.items is None else (self.interactions, self.items)

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The files of the saved folders, absolute; the hub's are not here."""
        folders = (table.folder(data_root) for table in self.tables())
        return tuple(file for folder in folders if folder for file in saved_files(_saved(folder)))

    def describe(self) -> str:
        """The format and the name of the folder or of the hub's dataset."""
        table = self.interactions
        return f"huggingface {table.hub or Path(table.path or '').name}"


def read_huggingface(config: HuggingFaceConfig, data_root: Path) -> RawTables:
    """Read a table of interactions and, if there is one, of items.

    Raises:
        ValueError: the package datasets or a folder is absent, or the hub cannot be reached;
            while reading, a column is absent or the data are damaged.
    """
    config.files(data_root)
    interactions, *items = (partial(table.pieces, data_root) for table in config.tables())
    return mapped_tables(config.columns, config.min_rating, interactions, *items)


def _fingerprint(config: HuggingFaceConfig, data_root: Path) -> str:
    """Of the saved files' contents, and of the hub's names with their commits."""
    contents = [file_sha256(file) for file in config.files(data_root)]
    return content_hash([contents, [t.model_dump(exclude={"path"}) for t in config.tables()]])


def _saved(folder: Path) -> Path:
    if is_saved(folder):
        return folder
    raise ValueError(
        f"huggingface: {folder} is not a folder that save_to_disk made; correct the path in the "
        "config, or use format table for Parquet files"
    )


def _of_split(tables: dict[str | None, Any], split: str | None, name: Path) -> dict[Any, Any]:
    if split is None or split in tables:
        return tables if split is None else {split: tables[split]}
    known = ", ".join(str(one) for one in tables if one is not None) or "none"
    raise ValueError(f"{name} has no split {split!r}: it has {known}")


def _recognise(sight: Sight) -> Guess | None:
    folders = [path for path in (sight.path, *sight.others) if path.is_dir() and is_saved(path)]
    fields = guessed_tables([one for folder in folders for one in _candidates(folder)])
    if fields is None:
        return None
    return Guess(fields, f"{sight.path.name} is a folder that save_to_disk made")


def _candidates(folder: Path) -> list[Candidate]:
    """The folder as one table if its splits have the same columns, else each split as one."""
    names = {split: tuple(table.column_names) for split, table in saved_tables(folder).items()}
    if len(set(names.values())) == 1:
        names = {None: next(iter(names.values()))}
    return [_candidate(folder, split, columns) for split, columns in names.items()]


def _candidate(folder: Path, split: str | None, names: tuple[str, ...]) -> Candidate:
    where = {"path": str(folder)} | ({} if split is None else {"split": split})
    table = DatasetTable.model_validate(where)
    return Candidate(where, names, partial(table.pieces, folder))


FORMAT = Format(
    config=HuggingFaceConfig,
    read=read_huggingface,
    summary="a folder saved by Hugging Face datasets, or a name on the hub",
    recognise=_recognise,
    fingerprint=_fingerprint,
)
