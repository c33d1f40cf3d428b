"""A corpus on disk: .npy arrays and Arrow string tables, and corpus.json, written last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.corpus_fingerprint import ARRAYS, TABLES, file_fingerprint
from pipeline.string_table import StringTable, StringTableWriter
from pipeline.whole_files import file_sha256, flush, read_json, write_json

FORMAT = 1
_MANIFEST = "corpus.json"


class CorpusWriter:
    """Writes a corpus a part at a time: aside, then whole at its place or not at all."""

    def __init__(self, path: Path) -> None:
        """Begin a corpus.

        Args:
            path: the folder to be.

        Raises:
            ValueError: `path` exists and is not an empty folder.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"cannot save a corpus to {path}: it exists; remove it first")
        self._path = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        self._arrays = {
            name: _ArrayFile(self._aside / f"{name}.npy", np.dtype(kind))
            for name, kind in ARRAYS.items()
        }
        self._tables = {name: StringTableWriter(self._aside / f"{name}.arrow") for name in TABLES}
        self._arrays["offsets"].add(np.zeros(1, dtype=np.int64))
        self._events = 0

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not finished."""
        if self._aside.exists():
            self._close()
            shutil.rmtree(self._aside)

    def add_items(self, ids: Iterable[pl.Series], texts: Iterable[pl.Series]) -> None:
        """Append items, with a text for each."""
        for name, batches in (("item_ids", ids), ("texts", texts)):
            for batch in batches:
                self._tables[name].add(batch)

    def add_rows(
        self,
        keys: pl.Series,
        lengths: NDArray[np.int64],
        items: NDArray[np.int32],
        timestamps: NDArray[np.int64],
    ) -> None:
        """Append rows: their keys [u] and numbers of events [u], and the events one after another.

        Keys must come in order, over all calls.
        """
        self._tables["user_keys"].add(keys)
        self._arrays["offsets"].add(self._events + lengths.cumsum())
        self._arrays["items"].add(items)
        self._arrays["timestamps"].add(timestamps)
        self._events += len(items)

    def finish(self, domains: Sequence[Mapping[str, Any]]) -> None:
        """Flush the files, write the manifest with the domains, rename the folder into place."""
        self._close()
        files = sorted(self._aside.iterdir())
        for file in files:
            flush(file)
        manifest = {
            "format": FORMAT,
            "domains": list(domains),
            "fingerprint": file_fingerprint(domains, self._aside),
            "files": {file.name: file_sha256(file) for file in files},
        }
        write_json(self._aside / _MANIFEST, manifest)
        os.replace(self._aside, self._path)
        flush(self._path.parent)

    def _close(self) -> None:
        for array in self._arrays.values():
            array.close()
        for table in self._tables.values():
            table.close()


def open_parts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(manifest, parts): what `CorpusWriter` wrote, verified and memory-mapped.

    Raises:
        ValueError: the folder is absent, of another format, or damaged.
    """
    manifest = read_json(path / _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"the corpus {path} has format {manifest.get('format')}, expected {FORMAT}: "
            "remove the folder and run the job again"
        )
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file() or file_sha256(file) != expected:
            raise ValueError(
                f"the corpus {path} is damaged: {name} is absent or differs from its checksum; "
                "remove the folder and run the job again"
            )
    parts: dict[str, Any] = {name: StringTable.open(path / f"{name}.arrow") for name in TABLES}
    for name in ARRAYS:
        parts[name] = np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return dict(manifest), parts


class _ArrayFile:
    """A .npy file of one dimension that grows: its header is written again at the end."""

    def __init__(self, path: Path, kind: np.dtype[Any]) -> None:
        self._kind, self._length = kind, 0
        self._stream = path.open("wb")
        self._header()

    def add(self, values: NDArray[Any]) -> None:
        assert (values.dtype, values.ndim) == (self._kind, 1), (values.dtype, values.shape)
        # Not by `tofile`, whose last buffer is lost without a word where the disk is full.
        self._stream.write(np.ascontiguousarray(values).data)
        self._length += len(values)

    def close(self) -> None:
        if not self._stream.closed:
            self._stream.seek(0)
            self._header()
            self._stream.close()

    def _header(self) -> None:
        """NumPy leaves room in it for the length to grow."""
        fields = {"descr": self._kind.str, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._stream, fields)
