"""Tables of Hugging Face `datasets`: saved in a folder, or streamed from the hub by name.

Only Parquet and Arrow are read: they say their types, where other files would have theirs guessed
(and the id 007 read as 7). Nothing of a dataset is ever run: the library knows no loading scripts
any more, and a folder or a repository that points out of itself is refused.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from pipeline.sources.delimited import column_places
from pipeline.sources.parquet_rows import BATCH_ROWS, arrow_pieces, frames_of
from pipeline.sources.pieces import Piece

_ONE, _MANY = "state.json", "dataset_dict.json"
_TYPED = ("datasets.packaged_modules.parquet.", "datasets.packaged_modules.arrow.")


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` made the folder, of one table or of several splits."""
    return (folder / _ONE).is_file() or (folder / _MANY).is_file()


def saved_files(folder: Path) -> tuple[Path, ...]:
    """All files of a saved folder, in the order of their paths."""
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def saved_tables(folder: Path) -> dict[str | None, Any]:
    """The tables in a folder that `save_to_disk` made, memory-mapped, by split; None: there is one.

    Raises:
        ValueError: the package datasets is absent, or the folder is not whole or not its own.
    """
    _check_confined(folder)
    library = _library()
    try:
        loaded = library.load_from_disk(str(folder))
    except _errors(ValueError) as error:
        raise ValueError(
            f"{folder} is not a whole folder of save_to_disk ({_first_line(error)}): save it again"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {None: loaded}


def hub_tables(hub: str, subset: str | None, revision: str) -> dict[str | None, Any]:
    """The splits of a dataset on the hub, to be streamed.

    Args:
        hub: OWNER/NAME.
        subset: which of its configurations; None where it has one.
        revision: a commit.

    Raises:
        ValueError: the package datasets is absent, the hub cannot be reached or has no such
            dataset, or that is not kept as Parquet or Arrow files of its own.
    """
    if Path(hub).exists():  # the library would take the folder for the dataset
        raise ValueError(f"{hub} is a file or folder here too: start from another folder")
    library = _library()
    try:
        builder = library.load_dataset_builder(hub, name=subset, revision=revision)
    except _errors(ValueError) as error:
        raise ValueError(_unreachable(hub, error)) from error
    return streamed_tables(builder, f"hf://datasets/{hub}@{revision}/")


def streamed_tables(builder: Any, root: str) -> dict[str | None, Any]:
    """The splits of a dataset builder, to be streamed.

    Args:
        builder: of the library.
        root: what the addresses of all its files must begin with.

    Raises:
        ValueError: the files are of another kind, or stand elsewhere.
    """
    kind = type(builder).__module__
    if not kind.startswith(_TYPED):
        raise ValueError(
            f"the dataset's files at {root} are {kind.rpartition('.')[2]}, expected Parquet or "
            "Arrow, which say their types: download them and use another format, such as table"
        )
    for files in builder.config.data_files.values():
        if astray := next((file for file in map(str, files) if not file.startswith(root)), None):
            raise ValueError(f"the dataset at {root} points out of itself, to {astray}")
    return dict(builder.as_streaming_dataset(split=None))


def pieces_of(
    tables: Mapping[str | None, Any], name: Path, columns: Mapping[str, str]
) -> Iterator[Piece]:
    """Read some columns of tables that follow one another, a batch of rows at a time.

    Args:
        tables: by split.
        name: of the dataset, for messages.
        columns: the new name of each column wanted -> its name in the tables.

    Raises:
        ValueError: a column is absent or of a type that is no text, or the data are damaged.
    """
    wanted = list(dict.fromkeys(columns.values()))
    for split, table in tables.items():
        named = name if split is None else name / split
        column_places(named, columns, table.column_names)
        try:
            batches = table.select_columns(wanted).with_format("arrow").iter(batch_size=BATCH_ROWS)
            yield from arrow_pieces(named, frames_of(batches), columns)
        except _errors() as error:
            raise ValueError(f"{named} cannot be read further ({_first_line(error)})") from error


def _library() -> ModuleType:
    if importlib.util.find_spec("datasets") is None:
        raise ValueError(
            "format huggingface needs the package datasets, which is not installed; run "
            "`pip install 'hydrarec[datasets]'`"
        )
    import datasets

    return datasets


def _errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What the library and those below it raise for what lies outside of the program, and more."""
    import datasets
    import pyarrow as pa

    # OSError: no network, no such dataset; RuntimeError: a loading script; KeyError, TypeError:
    # the descriptions that lie beside the data are not what they should be.
    own = datasets.exceptions.DatasetsError
    return (OSError, RuntimeError, KeyError, TypeError, pa.ArrowException, own, *more)


def _check_confined(folder: Path) -> None:
    """Only files in the folder itself may be its data."""
    for state in folder.rglob(_ONE):
        try:
            names = [part["filename"] for part in json.loads(state.read_bytes())["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{state} does not list the table's files: save it again") from error
        for name in names:
            if not isinstance(name, str) or PurePath(name).name != name:
                raise ValueError(f"{state} points out of its folder, to {name!r}: save it again")


def _unreachable(hub: str, error: Exception) -> str:
    return (
        f"the dataset {hub} cannot be read from the Hugging Face hub ({_first_line(error)}): check "
        "its name, subset and revision, the network and HF_HUB_OFFLINE, or save it to a folder and "
        "give its `path`"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
